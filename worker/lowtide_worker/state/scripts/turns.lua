-- Functions of the scripts that decide which jobs may be created. A job needs a slot of its provider; where its model
-- has a limit of enqueued tokens, it needs tokens too. They use names that these scripts declare: live (sorted set of
-- jobs), limit (lowered number of slots), most (slots), models (sorted set), job_hash, waiting_prefix (of a model's
-- line), tokens_prefix (of a model's live tokens), quota_prefix.

-- A stored value as a finite number from 0 on; nil where it is anything else.
local function amount(value)
  local number = tonumber(value)
  return number and number >= 0 and number < math.huge and number or nil
end

-- What is known of a model's quota: `configured` and `learned` limits, the time at which the latter was `lowered`, the
-- most tokens that the provider has `taken` since there is a limit, and sums of `estimated` and `reported` tokens.
-- What is no amount is left out: it must not stop the jobs of all batches.
local function read_quota(key)
  local readable, found = pcall(cjson.decode, redis.call('GET', key) or '{}')
  local quota = {}
  if not readable or type(found) ~= 'table' then return quota end
  for _, name in ipairs({'configured', 'learned', 'lowered', 'taken', 'estimated', 'reported'}) do
    quota[name] = amount(found[name])
  end
  return quota
end

-- A quota that nothing changes is forgotten after a week: the project may have moved to another tier.
local function write_quota(key, quota) redis.call('SET', key, cjson.encode(quota), 'EX', 604800) end

-- The most tokens of all live jobs of a model; nil where no limit is known.
local function limit_of(quota)
  if quota.configured and quota.learned then return math.min(quota.configured, quota.learned) end
  return quota.configured or quota.learned
end

-- Reported tokens for each estimated one, from 1/4 to 4. It needs some ten thousand tokens to move away from 1.
local function ratio_of(quota)
  local ratio = ((quota.reported or 0) + 1e4) / ((quota.estimated or 0) + 1e4)
  return math.max(0.25, math.min(4, ratio))
end

-- Adds the tokens of a closed job to what corrects the estimates. Only the last ten millions or so count.
local function correct(key, estimated, reported)
  local quota = read_quota(key)
  local all = (quota.estimated or 0) + estimated
  local kept = math.min(1, 1e7 / all)
  quota.estimated, quota.reported = all * kept, ((quota.reported or 0) + reported) * kept
  write_quota(key, quota)
end

-- The tokens of a model's live jobs, and their number.
local function live_tokens(model)
  local sum, jobs = 0, 0
  local found = redis.call('HGETALL', tokens_prefix .. model)
  for index = 1, #found, 2 do
    if redis.call('ZSCORE', live, found[index]) then
      sum, jobs = sum + (amount(found[index + 1]) or 0), jobs + 1
    else
      redis.call('HDEL', tokens_prefix .. model, found[index])
    end
  end
  return sum, jobs
end

-- The lowered number of slots; nil where it is not lowered, or not a number of slots.
local function lowered_slots()
  local slots = amount(redis.call('GET', limit))
  return slots and slots >= 1 and math.floor(slots) or nil
end

local function free_slots()
  return math.min(tonumber(most), lowered_slots() or tonumber(most)) - redis.call('ZCARD', live)
end

-- The tokens that a job gets of what is left: all that it needs, or all that is left, if that is a quarter of the limit;
-- nil where it must wait. A job that is alone gets at least its least part, even above the limit.
local function share_of(need, least, limit, used, jobs)
  local left = limit - used
  if need <= left then return need end
  if least <= left and left >= limit / 4 then return left end
  return jobs == 0 and least or nil
end

-- The first jobs of a model's line that may be created now, at most `count`; and whether the next one lacks tokens.
local function first_of(model, count)
  local found = {}
  local line = redis.call('ZRANGE', waiting_prefix .. model, 0, count - 1, 'WITHSCORES')
  if #line == 0 then return found, false end
  local quota = read_quota(quota_prefix .. model)
  local limit, ratio = limit_of(quota), ratio_of(quota)
  local used, jobs = 0, 0
  if limit then used, jobs = live_tokens(model) end
  for index = 1, #line, 2 do
    local id = line[index]
    if exists(job_hash .. id) then
      local tokens, least = unpack(redis.call('HMGET', job_hash .. id, 'tokens', 'least'))
      tokens, least = amount(tokens) or 1, amount(least) or 1
      local need = math.ceil(tokens * ratio)
      local given = limit and share_of(need, math.ceil(least * ratio), limit, used, jobs) or (not limit and need)
      if not given then return found, true end
      used, jobs = used + given, jobs + 1
      local part = given < need and math.max(least, math.floor(given / ratio)) or tokens
      found[#found + 1] = {id = id, turn = tonumber(line[index + 1]), given = given, part = part}
    else
      -- Its batch is deleted; it must not stand before the others.
      redis.call('ZREM', waiting_prefix .. model, id)
    end
  end
  return found, false
end

-- The jobs that may be created now, in the order of their turn: `given` are the tokens that each gets, `part` as many by
-- the estimate. No job stands before jobs of other models while it lacks tokens. Also returns which models lack tokens.
local function next_jobs()
  local found, short = {}, {}
  local free = free_slots()
  if free <= 0 then return found, short end
  for _, model in ipairs(redis.call('ZRANGE', models, 0, -1)) do
    local first, lacks = first_of(model, free)
    for _, job in ipairs(first) do found[#found + 1] = job end
    short[model] = lacks
  end
  table.sort(found, function(one, other)
    if one.turn ~= other.turn then return one.turn < other.turn end
    return one.id < other.id
  end)
  return slice(found, 1, math.min(free, #found)), short
end

-- Takes a job out of the live and the waiting ones.
local function leave(job, model, id)
  redis.call('ZREM', live, id)
  redis.call('HDEL', tokens_prefix .. model, id)
  redis.call('ZREM', waiting_prefix .. model, id)
  redis.call('HDEL', job, 'awaits', 'granted', 'granted_cost')
end

-- Makes those due whose turn has come. A job at work asks again only if it still waits for a slot when its work ends: see
-- advance.lua. Returns how many.
local function wake_next(clock, job_member)
  local found, due = next_jobs(), score(now())
  for _, job in ipairs(found) do
    local hash = job_hash .. job.id
    if redis.call('HGET', hash, 'busy') == '1' then
      redis.call('HSETNX', hash, 'woken', TURN)
    else
      wake(hash, job_member .. job.id, clock, due)
    end
  end
  return #found
end
