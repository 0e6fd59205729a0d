-- Counts a segment whose results are stored, once; with the job's last segment the job is due to be settled.
-- KEYS: 1 segment hash, 2 job hash, 3 batch hash, 4 clock of the segment, 5 clock of the job
-- ARGV: 1 segment member, 2 token, 3 job member, 4 "1" if a handler waits for the results, 5 lease,
--       6.. counter, amount pairs of the batch
-- Returns -1 if somebody else holds the segment now or its batch is deleted, else how many segments of the job are left.
-- Of a batch that is deleted, a counter would bring back a part.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] or redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
for index = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[3], ARGV[index], ARGV[index + 1]) end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'stored', '1')
  redis.call('HDEL', KEYS[1], 'granted', 'ordinals')
  redis.call('HINCRBY', KEYS[3], 'undelivered', 1)
  redis.call('ZADD', KEYS[4], 'XX', string.format('%.6f', now + ARGV[5]), ARGV[1])
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
end
local left = redis.call('HINCRBY', KEYS[2], 'segments_left', -1)
-- While `collected` says that more segments will come, the job is still held by its collect.
if left == 0 and (redis.call('HGET', KEYS[2], 'collected') or '') == '' then
  -- A new token: a worker that has just found segments left must not put the job back to sleep.
  redis.call('HINCRBY', KEYS[2], 'token', 1)
  redis.call('ZADD', KEYS[5], 'XX', string.format('%.6f', now), ARGV[3])
end
return left
