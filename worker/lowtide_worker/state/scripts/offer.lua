-- Gives a delivery one of the places in its handler's hands, if one is free.
-- KEYS: 1 segment hash, 2 deliveries in hand (sorted set, by when they count as lost), 3 deliveries that wait,
--       4 batch hash
-- ARGV: 1 segment member, 2 token, 3 most in hand, 4 seconds until it counts as lost
-- Returns 1, 0 if it must wait, -1 if somebody else holds the segment now or its batch is deleted.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or redis.call('EXISTS', KEYS[4]) == 0 then return -1 end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
-- What is lost comes again by the clock; its place must not be lost with it.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then
  redis.call('ZADD', KEYS[3], 'NX', string.format('%.6f', now), ARGV[1])
  return 0
end
redis.call('ZADD', KEYS[2], string.format('%.6f', now + ARGV[4]), ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
