-- Ends a piece of work: writes what it found and when the entity is due next.
-- KEYS: 1 entity's hash, 2 clock it is on, 3 clock it goes to
-- ARGV: 1 member, 2 token, 3 next stage ("" for none: off the clock), 4 seconds until due, 5 lease,
--       6.. field, value pairs
-- Returns -1 if somebody else holds the entity now, the token of the next message if it is due at once, else 0.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return -1 end
if #ARGV > 5 then redis.call('HSET', KEYS[1], unpack(ARGV, 6)) end
if KEYS[2] ~= KEYS[3] or ARGV[3] == '' then redis.call('ZREM', KEYS[2], ARGV[1]) end
if ARGV[3] == '' then
  redis.call('HSET', KEYS[1], 'stage', '', 'busy', '0')
  return 0
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
-- Somebody wanted to wake it while it was being worked on, and may have changed what this work has looked at.
local woken = redis.call('HDEL', KEYS[1], 'woken') == 1
if tonumber(ARGV[4]) > 0 then
  redis.call('HSET', KEYS[1], 'stage', ARGV[3], 'busy', '0')
  redis.call('ZADD', KEYS[3], string.format('%.6f', woken and now or now + ARGV[4]), ARGV[1])
  return 0
end
redis.call('HSET', KEYS[1], 'stage', ARGV[3], 'busy', '1')
redis.call('ZADD', KEYS[3], string.format('%.6f', now + ARGV[5]), ARGV[1])
local token = redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSET', KEYS[1], 'sent', token)
return token
