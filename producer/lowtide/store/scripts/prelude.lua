-- Functions that every script may use. The text of each script begins with this file.

-- The time by Redis's clock, in Unix seconds.
local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

-- A time as the clocks and hashes keep it, to the microsecond.
local function score(seconds) return string.format('%.6f', seconds) end

-- The score of what is due now and waits while there is other work: see claim.lua.
local function lower_turn() return score(now() + LOWER_TURN) end

-- A stored value as a finite number; nil where it is anything else. Another entity's field may be damaged, which must not
-- stop this one: arithmetic with nil, and JSON of a number that is not finite, end a script with an error.
local function finite(value)
  local number = tonumber(value or '')
  return number and math.abs(number) < math.huge and number or nil
end

-- The same, from 0 on.
local function amount(value)
  local number = finite(value)
  return number and number >= 0 and number or nil
end

-- A stored number of things to go through; 0 where it can be none. Redis does nothing else while a script runs.
local function steps(value)
  local number = amount(value)
  return number and number <= 1e6 and math.floor(number) or 0
end

-- Adds to a field that may be damaged, and then stays as it is.
local function increase(hash, field, more) return redis.pcall('HINCRBY', hash, field, more) end

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

-- The value of `woken` of a job at work whose turn for a slot has come. It counts only while the job waits for one.
local TURN = '0'

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
-- Of the segments that their handler has not taken, the times are kept too: the oldest one shows a handler that stalls.
-- A name is `kind|state` and what stays the same: of a job its provider and model, of a batch its number of requests,
-- which are counted by the state of their batch.
local function count(hash, census, name, sign)
  if name == 'segments|undelivered' then
    local member = string.sub(hash, #KEY + 1)
    if sign == 1 then redis.pcall('ZADD', UNDELIVERED, score(now()), member)
    else redis.pcall('ZREM', UNDELIVERED, member) end
  end
  local kind, state, requests = string.match(name, '^(%l+)|([^|]*)|(%d+)$')
  if kind ~= 'batches' and kind ~= 'gathered' then return add(census, name, sign) end
  add(census, kind .. '|' .. state, sign)
  add(census, 'requests|' .. state, sign * requests)
  return name
end

-- Counts an entity that has just been made. Its hash keeps the name, so that it is never counted twice.
local function count_in(hash, census, name) redis.call('HSET', hash, 'counted', count(hash, census, name, 1)) end

-- The name under which an entity is counted; nil for one that an earlier version has made.
local function counted_as(hash)
  local name = redis.pcall('HGET', hash, 'counted')
  return type(name) == 'string' and name or nil
end

-- Publishes that a batch has changed; another entity has no channel. It is a hint for those who wait: one who may not
-- publish does the work all the same.
local function publish(hash, state)
  if string.sub(hash, 1, #BATCH) == BATCH then
    redis.pcall('PUBLISH', CHANGED .. string.sub(hash, #BATCH + 1), state)
  end
end

-- Counts an entity under its new state, and publishes that of a batch.
local function recount(hash, census, state)
  publish(hash, state)
  local before = counted_as(hash)
  local name = before and string.gsub(before, '|[^|]*', '|' .. state, 1)
  if name == before then return end
  count(hash, census, before, -1)
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

-- The attempt to deliver a segment that failed, as `FailedDelivery` of lowtide.protocol.
local function failed_delivery(member, attempt, most, due)
  return cjson.encode({segment = member, attempt = finite(attempt) or 0, most = finite(most) or 0, due = due})
end

-- Removes what a batch says of a failed delivery, unless it is about another segment.
local function forget_failed_delivery(batch, member)
  local about = decoded(redis.call('HGET', batch, 'delivery_failed')).segment
  if about and about ~= member then return 0 end
  return redis.call('HDEL', batch, 'delivery_problem', 'delivery_failed')
end

-- Has the output of a job collected from its first byte again.
local function collect_again(job)
  redis.call('HSET', job, 'recollected', redis.call('HGET', job, 'segments') or 0, 'collected', '{}')
end

-- Removes the hash of an entity, which is counted no more.
local function remove(hash, census)
  local name = counted_as(hash)
  if name then count(hash, census, name, -1) end
  redis.call('DEL', hash)
end

-- The numbers of a batch's requests: all, succeeded, failed, expired, cancelled; and whether the last four make up all.
-- `more` requests are about to be counted as `ended`, where these are given.
local function counts_of(batch, ended, more)
  local names = {'total', 'succeeded', 'failed', 'expired', 'cancelled'}
  local found = redis.call('HMGET', batch, unpack(names))
  for index, name in ipairs(names) do
    found[index] = (finite(found[index]) or 0) + (name == ended and tonumber(more) or 0)
  end
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
  for number = 1, steps(redis.call('HGET', batch, 'jobs')) do
    wake(job_hash .. number, job_member .. number, clock, due)
  end
end

-- Makes a batch event due, with a copy of the batch as it is now, if the batch names a handler for it. `name` is
-- `finished` or `progress`, `clock` that of the stage.
local function put_event(batch, name, handler, census, clock, due)
  if not handler or handler == '' then return end
  local member = EVENT .. string.sub(batch, #BATCH + 1) .. ':' .. name
  local event = KEY .. member
  -- An earlier batch of the same id may have left one, which a worker or a handler may have in hand.
  local token = (finite(redis.call('HGET', event, 'token')) or 0) + 1
  remove(event, census)
  redis.call('ZREM', PARKED, member)
  redis.call('COPY', batch, event)
  redis.call('HDEL', event, 'sent', 'woken', 'failures', 'problem')
  redis.call('HSET', event, 'stage', NOTIFY, 'token', token, 'busy', 0)
  count_in(event, census, 'events|waiting')
  redis.call('ZADD', clock, score(due), member)
end

-- Ends a batch whose requests all have their result. Returns its final state.
local function finish(batch, census, found, clock, member, stage, retention)
  local time = now()
  local state = 'completed'
  if found[5] > 0 then state = 'cancelled'
  elseif found[4] > 0 then state = 'expired'
  elseif found[2] == 0 then state = 'failed' end
  redis.call('HSET', batch, 'state', state, 'finished', score(time), 'stage', stage, 'busy', '0', 'problem', '')
  recount(batch, census, state)
  local kept, left = unpack(redis.call('HMGET', batch, 'kept', 'bundled_left'))
  retention = finite(kept) or retention
  -- A bundle whose batches are all deleted already: none of them can make it due any more.
  if left == '0' then retention = 0 end
  redis.call('ZADD', clock, score(time + retention), member)
  put_event(batch, 'finished', redis.call('HGET', batch, 'on_finished'), census, clock, time)
  return state
end
