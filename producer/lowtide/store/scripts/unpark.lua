-- Ends the parking of a segment: delivers it again, or drops it.
-- KEYS: 1 segment hash, 2 batch hash, 3 parked segments, 4 clock
-- ARGV: 1 member, 2 stage to go to ("" drops it)
-- Returns 1, or 0 where the segment is not parked, or its batch is deleted.
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('HINCRBY', KEYS[2], 'parked', -1)
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSET', KEYS[1], 'stage', ARGV[2], 'tries', '0', 'busy', '0')
-- Its attempts are counted from one again.
redis.call('HDEL', KEYS[1], 'begun_attempt', 'begun')
redis.call('HINCRBY', KEYS[2], 'undelivered', 1)
local time = redis.call('TIME')
redis.call('ZADD', KEYS[4], string.format('%.6f', time[1] + time[2] / 1e6), ARGV[1])
return 1
