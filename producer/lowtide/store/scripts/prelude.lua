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
