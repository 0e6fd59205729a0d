-- Puts a delivered segment back on the clock because its handler failed.
-- KEYS: 1 batch hash, 2 segment hash, 3 clock
-- ARGV: 1 member, 2 seconds until due, 3.. field, value pairs of the segment
-- Returns 1, or 0 where the batch is gone and nobody waits for it any more.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HINCRBY', KEYS[1], 'undelivered', 1) end
-- A new token: a worker that is just finishing the earlier delivery must not remove this one.
redis.call('HINCRBY', KEYS[2], 'token', 1)
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[2]), ARGV[1])
return 1
