-- Puts a delivered segment back on the clock because its handler failed.
-- KEYS: 1 batch hash, 2 segment hash, 3 clock, 4 parked segments
-- ARGV: 1 member, 2 seconds until due, 3 the attempt that failed, 4.. field, value pairs of the segment
-- Returns 1, or 0 where nobody waits for it: the batch is gone, the segment is parked, this attempt was handed back
-- before (a second copy of its message), or the results are not stored yet (Redis went back in time: the segment is
-- stored again, and comes again).
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 0 end
if tonumber(redis.call('HGET', KEYS[2], 'tries') or 0) >= tonumber(ARGV[3]) then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HINCRBY', KEYS[1], 'undelivered', 1)
elseif redis.call('HGET', KEYS[2], 'stored') ~= '1' then
  return 0
end
-- A new token: a worker that is just finishing the earlier delivery must not remove this one.
redis.call('HINCRBY', KEYS[2], 'token', 1)
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
-- Why its results are not delivered is shown of the batch too.
redis.call('HSET', KEYS[1], 'delivery_problem', redis.call('HGET', KEYS[2], 'problem'))
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[2]), ARGV[1])
return 1
