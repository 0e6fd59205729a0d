-- Has a delivery wait until somebody listens for its handler; its place in the handler's hands is free again.
-- KEYS: 1 segment hash, 2 listeners of the handler, 3 deliveries in hand, 4 deliveries that wait, 5 batch hash
-- ARGV: 1 segment member, 2 token, 3 seconds after which a silent worker counts for nothing, 4 the batch's problem,
--       5 seconds until the set of those that wait is forgotten
-- Returns 1, 0 if somebody has come meanwhile, -1 if somebody else holds the segment now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return -1 end
redis.call('ZREM', KEYS[3], ARGV[1])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local last = redis.call('ZRANGE', KEYS[2], 0, 0, 'REV', 'WITHSCORES')
if last[2] and now - last[2] < tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[4], 'NX', string.format('%.6f', now), ARGV[1])
-- What waits looks again by itself too; the set need not outlive batches that were deleted meanwhile.
redis.call('EXPIRE', KEYS[4], ARGV[5])
if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('HSET', KEYS[5], 'delivery_problem', ARGV[4]) end
return 1
