-- Functions that every script may use. The text of each script begins with this file.

-- The time by Redis's clock, in Unix seconds.
local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

-- A time as the clocks and hashes keep it, to the microsecond.
local function score(seconds) return string.format('%.6f', seconds) end

local function exists(key) return redis.call('EXISTS', key) == 1 end

-- Whether another worker holds the entity now: each time it is given out, it has a new token.
local function held_by_other(hash, token) return redis.call('HGET', hash, 'token') ~= token end

-- Makes an entity due that waits on a clock. One that a worker holds right now is due again when that work ends: the
-- worker may have asked too early, and taking the entity away would only repeat work.
-- Returns whether there was something to wake.
local function wake(hash, member, clock, due)
  if redis.call('HGET', hash, 'busy') == '1' then
    redis.call('HSET', hash, 'woken', '1')
    return true
  end
  return redis.call('ZADD', clock, 'XX', 'CH', due, member) == 1
end

-- The items of a table from one index to another.
local function slice(items, first, last)
  local found = {}
  for index = first, last do found[#found + 1] = items[index] end
  return found
end

-- Adds to one counter of a hash. A hash with thousands of counters gets no new name: its last part is `other` then.
-- Errors are ignored, as a damaged counter must not stop work. Returns the name that was counted under.
local function add(counters, name, amount)
  local count = redis.pcall('HINCRBY', counters, name, amount)
  if count == 0 then
    redis.call('HDEL', counters, name)
  elseif count == tonumber(amount) and redis.call('HLEN', counters) > 5000 then
    redis.call('HDEL', counters, name)
    name = (string.match(name, '^.*|') or '') .. 'other'
    redis.pcall('HINCRBY', counters, name, amount)
  end
  return name
end

-- Adds to several counters: names and amounts in pairs.
local function add_all(counters, totals)
  for index = 1, #totals, 2 do add(counters, totals[index], totals[index + 1]) end
end

-- Counts a time in a histogram: under `name|bound` with the first bound that it does not exceed, and in the sum, in
-- microseconds.
local function observe(latencies, name, seconds, bounds)
  seconds = math.max(0, seconds)
  local place = 'inf'
  for _, bound in ipairs(bounds) do
    if seconds <= tonumber(bound) then
      place = bound
      break
    end
  end
  redis.pcall('HINCRBY', latencies, name .. '|' .. place, 1)
  redis.pcall('HINCRBY', latencies, name .. '|sum', math.floor(seconds * 1e6))
end

-- Adds an entity to the census, or takes it out: `sign` is 1 or -1. Returns the name that it was counted under.
-- A name is `kind|state` and what stays the same: of a job its provider and model, of a batch its number of requests,
-- which are counted by the state of their batch.
local function count(census, name, sign)
  local state, requests = string.match(name, '^batches|([^|]*)|(%d+)$')
  if not requests then return add(census, name, sign) end
  add(census, 'batches|' .. state, sign)
  add(census, 'requests|' .. state, sign * requests)
  return name
end

-- Counts an entity that has just been made. Its hash keeps the name, so that it is never counted twice.
local function count_in(hash, census, name) redis.call('HSET', hash, 'counted', count(census, name, 1)) end

-- The name under which an entity is counted; nil for one that an earlier version has made.
local function counted_as(hash)
  local name = redis.pcall('HGET', hash, 'counted')
  return type(name) == 'string' and name or nil
end

-- Counts an entity under its new state.
local function recount(hash, census, state)
  local before = counted_as(hash)
  local name = before and string.gsub(before, '|[^|]*', '|' .. state, 1)
  if name == before then return end
  count(census, before, -1)
  count_in(hash, census, name)
end

-- Writes fields, in pairs. A new state is counted.
local function write(hash, census, fields)
  if #fields == 0 then return end
  redis.call('HSET', hash, unpack(fields))
  for index = 1, #fields, 2 do
    if fields[index] == 'state' then recount(hash, census, fields[index + 1]) end
  end
end

-- A table from JSON; an empty one where there is none, or it is damaged.
local function decoded(json)
  local readable, found = pcall(cjson.decode, json or '{}')
  return readable and type(found) == 'table' and found or {}
end

-- Has the output of a job collected from its first byte again. Rows that come once more were paid once: from now on the
-- tokens of each collection have a sum of their own, see `count_paid`.
local function collect_again(job, paid)
  local segments, recollected, now = unpack(redis.call('HMGET', job, 'segments', 'recollected', 'paid_now'))
  if tonumber(segments or 0) > tonumber(recollected or 0) then
    local before = now
    if not before then
      local sums = {}
      for index, amount in ipairs(redis.call('HMGET', job, unpack(paid))) do sums[paid[index]] = tonumber(amount or 0) end
      before = cjson.encode(sums)
    end
    redis.call('HSET', job, 'recollected', segments, 'recollected_before', recollected or 0, 'paid_before', before)
  end
  redis.call('HSET', job, 'collected', '{}', 'paid_now', '{}')
  redis.call('HDEL', job, 'retried_by')
end

-- Counts the tokens of a segment of a job, in the job and in its batch. Where the output was collected again, both have
-- the most that one collection has found: the rows may come once more, or may not come any more.
local function count_paid(job, batch, number, paid)
  local first, first_before, now = unpack(redis.call('HMGET', job, 'recollected', 'recollected_before', 'paid_now'))
  local collection
  if now then
    collection = number >= tonumber(first or 0) and 'paid_now' or 'paid_before'
    -- One from before the last two has come twice more since.
    if number < tonumber(first_before or 0) then return end
  end
  local sums = collection and decoded(redis.call('HGET', job, collection))
  for index = 1, #paid, 2 do
    local counter, more = paid[index], tonumber(paid[index + 1])
    if sums then
      sums[counter] = (sums[counter] or 0) + more
      more = math.max(0, sums[counter] - (redis.call('HGET', job, counter) or 0))
    end
    redis.call('HINCRBY', batch, counter, more)
    redis.call('HINCRBY', job, counter, more)
  end
  if sums then redis.call('HSET', job, collection, cjson.encode(sums)) end
end

-- Removes the hash of an entity, which is counted no more.
local function remove(hash, census)
  local name = counted_as(hash)
  if name then count(census, name, -1) end
  redis.call('DEL', hash)
end

-- The numbers of a batch's requests: all, succeeded, failed, expired, cancelled; and whether the last four make up all.
local function counts_of(batch)
  local found = redis.call('HMGET', batch, 'total', 'succeeded', 'failed', 'expired', 'cancelled')
  for index = 1, 5 do found[index] = tonumber(found[index] or 0) end
  return found, found[1] == found[2] + found[3] + found[4] + found[5]
end

-- Whether results are still wanted of a batch in this state.
local function runs(state) return state == 'pending' or state == 'running' end

-- Raises the flag of a batch that is to stop, and makes its waiting jobs due at once. `job_hash` and `job_member` are
-- prefixes of its jobs, followed by their number.
local function stop(batch, census, clock, job_hash, job_member)
  redis.call('HSET', batch, 'state', 'cancelling', 'cancel', '1')
  recount(batch, census, 'cancelling')
  local due = score(now())
  for number = 1, tonumber(redis.call('HGET', batch, 'jobs')) do
    wake(job_hash .. number, job_member .. number, clock, due)
  end
end

-- Ends a batch whose requests all have their result. Returns its final state.
local function finish(batch, census, found, clock, member, stage, retention)
  local time = now()
  local state = 'completed'
  if found[5] > 0 then state = 'cancelled'
  elseif found[4] > 0 then state = 'expired'
  elseif found[2] == 0 then state = 'failed' end
  redis.call('HSET', batch, 'state', state, 'finished', score(time), 'stage', stage, 'busy', '0')
  recount(batch, census, state)
  redis.call('ZADD', clock, score(time + retention), member)
  return state
end
