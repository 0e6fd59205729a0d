-- Reads the lines of a provider's models, those that were asked for last, for one scrape of the metrics.
-- KEYS: models (sorted set)
-- ARGV: most (models), waiting_prefix (of a model's line), tokens_prefix (of a model's live tokens), quota_prefix,
--       priorities (most of them)
-- Returns for each model: its name, the number of jobs in its line, the time at which the oldest of their batches was
-- created ("" without one), the live tokens, and the quota ("" without one).

-- A key that another program has changed must not hide all other models.
local function read(...)
  local reply = redis.pcall(...)
  return not (type(reply) == 'table' and reply.err) and reply or nil
end

-- A turn is the creation of the batch, below 1e10, minus 1e10 for each step of its priority. So the first job of each
-- priority is the oldest one of it.
local function oldest_of(line)
  local oldest, from = nil, '-inf'
  for _ = 1, priorities do
    local first = read('ZRANGEBYSCORE', line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first or #first == 0 then break end
    local turn = finite(first[2])
    if not turn then break end
    local created = turn % 1e10
    oldest = math.min(oldest or created, created)
    from = string.format('%.3f', turn - created + 1e10)
  end
  return oldest and score(oldest) or ''
end

local found = {}
for _, model in ipairs(redis.call('ZREVRANGE', models, 0, most - 1)) do
  local line, tokens = waiting_prefix .. model, 0
  for _, each in ipairs(read('HVALS', tokens_prefix .. model) or {}) do tokens = tokens + (amount(each) or 0) end
  found[#found + 1] = {
    model, read('ZCARD', line) or 0, oldest_of(line), score(tokens), read('GET', quota_prefix .. model) or '',
  }
end
return found
