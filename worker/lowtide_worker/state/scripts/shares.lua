-- Functions of the scripts that keep the line of each model: the jobs that wait, in the order of their turn. The line has
-- strands: the jobs of one tenant and one priority, the oldest batch first. Strands of equal priority get equal parts of
-- what comes free. They use names that these scripts declare: models (sorted set), job_hash, waiting_prefix (of all jobs
-- of a line), strand_prefix (of the jobs of a strand), strands_prefix (of the strands of a line, by turn),
-- strand_of_prefix (of the strand of each job), share_prefix (of the share at which a tenant begins), matched_prefix (of how
-- far a line is compared with its strands).

-- The share of a tenant grows by `CAPACITY` when it gets all slots or all tokens once. Scores are whole numbers below
-- 2^53: a share, below `PER_PRIORITY`, minus `PER_PRIORITY` for each step of the priority.

-- A job's place among all jobs of its line: ten digits of seconds below the priority. This is the order of earlier
-- versions, whose workers may use the same line.
local function turn_of(priority, created) return string.format('%.3f', created - priority * 1e10) end

-- The limits of the scores of a priority.
local function least_turn(priority) return string.format('%.0f', -priority * PER_PRIORITY) end
local function most_turn(priority) return string.format('(%.0f', (1 - priority) * PER_PRIORITY) end

-- The digest of the tenant of a batch; "" for none. A record of an earlier version has the label only.
local function tenant_of(batch)
  -- The record of another batch may be anything.
  local tenant, labels = unpack(redis.pcall('HMGET', batch, 'tenant', 'labels'))
  if tenant then return tenant end
  local name = decoded(labels or nil)[TENANT]
  return type(name) == 'string' and name ~= '' and redis.sha1hex(name) or ''
end

local function strand_key(model, strand) return strand_prefix .. strand .. ':' .. model end

-- The priority of a strand, and its tenant.
local function parts_of(strand)
  local priority, tenant = string.match(strand, '^(-?%d+):(.*)$')
  return tonumber(priority), tenant
end

-- The number of tenants that wait in a line with this priority.
local function tenants_that_wait(model, priority)
  return redis.call('ZCOUNT', strands_prefix .. model, least_turn(priority), most_turn(priority))
end

-- The turn of a tenant that begins to wait: the share at which those that wait are on average, but no less than the
-- lowest of them. Nothing is saved up while none of its jobs wait. One that begins later stands behind.
local function beginning_turn(model, priority)
  local line = strands_prefix .. model
  local first = redis.call('ZRANGEBYSCORE', line, least_turn(priority), most_turn(priority), 'WITHSCORES', 'LIMIT', 0, 1)
  local share = finite(redis.call('HGET', share_prefix .. model, priority)) or 0
  local lowest = first[2] and first[2] + priority * PER_PRIORITY or 0
  share = math.min(math.max(share, lowest) + 1, PER_PRIORITY - 1)
  redis.call('HSET', share_prefix .. model, priority, string.format('%.0f', share))
  return string.format('%.0f', share - priority * PER_PRIORITY)
end

-- Puts a job of a line into its strand.
local function enter_strand(model, id, turn, tenant)
  local created = turn % 1e10
  local priority = math.floor((created - turn) / 1e10 + 0.5)
  local strand = string.format('%d:%s', priority, tenant)
  redis.call('HSET', strand_of_prefix .. model, id, strand)
  redis.call('ZADD', strand_key(model, strand), string.format('%.3f', created), id)
  if not redis.call('ZSCORE', strands_prefix .. model, strand) then
    redis.call('ZADD', strands_prefix .. model, beginning_turn(model, priority), strand)
  end
end

-- Takes a job out of a strand, and a strand without jobs out of its line.
local function leave_strand(model, id, strand)
  redis.call('ZREM', strand_key(model, strand), id)
  if exists(strand_key(model, strand)) then return end
  redis.call('ZREM', strands_prefix .. model, strand)
  local priority = parts_of(strand)
  if priority and tenants_that_wait(model, priority) == 0 then
    redis.call('HDEL', share_prefix .. model, priority)
  end
end

-- Takes a job out of a line. Returns whether it was there.
local function leave_line(model, id)
  local removed = redis.call('ZREM', waiting_prefix .. model, id) == 1
  local strand = redis.call('HGET', strand_of_prefix .. model, id)
  if strand then
    redis.call('HDEL', strand_of_prefix .. model, id)
    leave_strand(model, id, strand)
  end
  return removed
end

-- Puts a job into the line of its model, if it is not there.
local function join_line(model, id, turn, batch)
  redis.call('ZADD', waiting_prefix .. model, 'NX', turn, id)
  local strand = redis.call('HGET', strand_of_prefix .. model, id)
  if not strand or not redis.call('ZSCORE', strand_key(model, strand), id) then
    enter_strand(model, id, tonumber(turn), tenant_of(batch))
  end
end

-- Adds what a job gets to the share of its tenant. Those that begin to wait later begin behind: their share grows as it
-- would if all tenants that wait got something at the same time.
local function charge(model, id, cost)
  local strand = redis.call('HGET', strand_of_prefix .. model, id)
  if not strand then return end
  local priority = parts_of(strand)
  local turn = tonumber(redis.call('ZSCORE', strands_prefix .. model, strand) or least_turn(priority)) + cost
  turn = math.min(turn, (1 - priority) * PER_PRIORITY - 1)
  local sharing = math.max(1, tenants_that_wait(model, priority))
  redis.call('ZADD', strands_prefix .. model, string.format('%.0f', turn), strand)
  redis.pcall('HINCRBY', share_prefix .. model, priority, string.format('%.0f', math.ceil(cost / sharing)))
end

-- Whether a job that is in a strand, and not among all jobs of the line, waits all the same: their set was deleted. Then
-- it has its place there again. An earlier version has taken out any other: such a job awaits nothing.
local function stays(model, id, strand)
  local awaits = redis.pcall('HGET', job_hash .. id, 'awaits')
  local created = (awaits == 'slot' or awaits == 'tokens') and redis.call('ZSCORE', strand_key(model, strand), id)
  if not created then return false end
  redis.call('ZADD', waiting_prefix .. model, 'NX', turn_of(parts_of(strand), created), id)
  return true
end

-- Puts jobs of a line into strands that are in none: a worker of an earlier version knows the line of all jobs only. It
-- begins behind those that were compared by the calls before, and compares 2,000 jobs and puts in 300 of them at most, as
-- Redis does nothing else meanwhile. The others follow with the next calls.
local function enter_missing(model, line, strand_of)
  local matched = matched_prefix .. model
  local start = math.floor(math.min(amount(redis.pcall('GET', matched)) or 0, redis.call('ZCARD', line)))
  local at, left, compared, wrapped = start, 300, 0, false
  while left > 0 and compared < 2000 and not (wrapped and at >= start) do
    local page = redis.call('ZRANGE', line, at, at + 499, 'WITHSCORES')
    if #page == 0 then
      if wrapped or at == 0 then break end
      at, wrapped = 0, true
    else
      local ids = {}
      for index = 1, #page, 2 do ids[#ids + 1] = page[index] end
      for index, strand in ipairs(redis.call('HMGET', strand_of, unpack(ids))) do
        if left == 0 then break end
        local turn = finite(page[2 * index])
        if strand or turn then at = at + 1 end
        if not strand then
          local batch = string.match(ids[index], '^(.*)-%d+$') or ''
          if turn then enter_strand(model, ids[index], turn, tenant_of(BATCH .. batch))
          else redis.call('ZREM', line, ids[index]) end
          left = left - 1
        end
      end
      compared = compared + #ids
    end
  end
  redis.call('SET', matched, at, 'EX', 600)
end

-- Brings the strands of a line up to date after a worker of an earlier version.
local function match_strands(model)
  local line, strand_of = waiting_prefix .. model, strand_of_prefix .. model
  local waiting = redis.call('ZCARD', line)
  -- The strands are lost: another program had written to their key, and it was deleted.
  if waiting > 0 and not exists(strands_prefix .. model) then redis.call('DEL', strand_of, matched_prefix .. model) end
  if waiting ~= redis.call('HLEN', strand_of) then enter_missing(model, line, strand_of) end
  local known = redis.call('HLEN', strand_of)
  if redis.call('ZCARD', line) == known then redis.call('DEL', matched_prefix .. model) end
  -- Those that have left the line. Where there are many jobs, they are taken out when their turn comes.
  if redis.call('ZCARD', line) >= known or known > 2000 then return end
  local left, found = 500, redis.call('HGETALL', strand_of)
  for index = 1, #found, 2 do
    if left > 0 and not redis.call('ZSCORE', line, found[index]) then
      if not stays(model, found[index], found[index + 1]) then leave_line(model, found[index]) end
      left = left - 1
    end
  end
end

-- The jobs of a line one after the other, as they get their turn: a function that returns the next one's id and strand,
-- one that notes that it got something, at a cost, one that takes it out of the line, and one that returns whether the line
-- has changed so that it is to be read again. At most `count` jobs are wanted, so no more strands are read: each further
-- strand has so many before it.
local function in_turn(model, count)
  local strands, changed = {}, false
  local found = redis.call('ZRANGE', strands_prefix .. model, 0, count - 1, 'WITHSCORES')
  for index = 1, #found, 2 do
    strands[#strands + 1] = {name = found[index], turn = tonumber(found[index + 1]), read = 0, at = 0, jobs = {}}
  end
  local page = math.max(1, math.ceil(count / math.max(1, #strands)))
  local function next_job()
    while strands[1] do
      local strand = strands[1]
      if strand.at == #strand.jobs then
        strand.jobs, strand.at = redis.call('ZRANGE', strand_key(model, strand.name), strand.read, strand.read + page - 1), 0
        strand.read = strand.read + #strand.jobs
        -- Its jobs are lost, as its key was deleted: all jobs of the line are put into strands again.
        if strand.read == 0 and redis.call('ZREM', strands_prefix .. model, strand.name) == 1 then
          redis.call('DEL', strand_of_prefix .. model)
          changed = true
        end
      end
      strand.at = strand.at + 1
      if strand.jobs[strand.at] then return strand.jobs[strand.at], strand.name end
      table.remove(strands, 1)
    end
  end
  local function got(cost)
    local strand, place = strands[1], 1
    strand.turn = strand.turn + cost
    while strands[place + 1] and strands[place + 1].turn < strand.turn do
      strands[place], strands[place + 1], place = strands[place + 1], strand, place + 1
    end
  end
  local function drop(id)
    leave_line(model, id)
    -- Where its strand is not known: it would come again and again.
    leave_strand(model, id, strands[1].name)
    changed = true
    -- Those behind it have moved up.
    strands[1].read = strands[1].read - 1
  end
  return next_job, got, drop, function() return changed end
end
