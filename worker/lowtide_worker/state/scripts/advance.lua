-- Ends a piece of work: writes what it found and when the entity is due next.
-- KEYS: entity, clock (it is on), next_clock (it goes to), census
-- ARGV: member, token, stage (to come; "" for none: off the clock), after (seconds until due), lease (in seconds),
--       fields... (in pairs)
-- Returns -1 if another worker holds the entity now, the token of the next message if it is due at once, else 0.
if held_by_other(entity, token) then return -1 end
write(entity, census, fields)
if clock ~= next_clock or stage == '' then redis.call('ZREM', clock, member) end
if stage == '' then
  redis.call('HSET', entity, 'stage', '', 'busy', '0')
  return 0
end
-- Another process tried to wake it during this work, and may have changed what this work has read.
local before, woken = unpack(redis.call('HMGET', entity, 'stage', 'woken'))
if woken then redis.call('HDEL', entity, 'woken') end
-- A job whose turn for a slot has come, and that has left the stage in which it waits for one, had its turn.
if woken == TURN and before ~= stage then woken = nil end
if tonumber(after) > 0 then
  redis.call('HSET', entity, 'stage', stage, 'busy', '0')
  local due = now() + after
  if woken then due = math.min(due, math.max(now(), finite(woken) or 0)) end
  redis.call('ZADD', next_clock, score(due), member)
  return 0
end
redis.call('HSET', entity, 'stage', stage, 'busy', '1')
redis.call('ZADD', next_clock, score(now() + lease), member)
local sent = redis.call('HINCRBY', entity, 'token', 1)
redis.call('HSET', entity, 'sent', sent)
return sent
