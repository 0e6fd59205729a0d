-- Puts the jobs that a batch was cut into on the clock, and takes the batch off it.
-- KEYS: 1 batch hash, 2 clock
-- ARGV: 1 batch member, 2 token, 3 prefix of a job's hash, 4 prefix of a job's member, 5 prefix of a job's bitmap,
--       6 number of jobs, 7 their stage
-- Returns 1, or 0 if somebody else holds the batch now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
local jobs = tonumber(ARGV[6])
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
for number = 1, jobs do
  redis.call('HSET', ARGV[3] .. number, 'stage', ARGV[7])
  redis.call('ZADD', KEYS[2], now, ARGV[4] .. number)
end
-- A run that died may have cut it into more.
for number = jobs + 1, tonumber(redis.call('HGET', KEYS[1], 'drafted')) do
  redis.call('DEL', ARGV[3] .. number, ARGV[5] .. number)
end
redis.call('HDEL', KEYS[1], 'drafted')
redis.call('HSET', KEYS[1], 'stage', '', 'busy', '0', 'jobs', jobs, 'open', jobs)
if redis.call('HGET', KEYS[1], 'cancel') == '0' then redis.call('HSET', KEYS[1], 'state', 'running') end
-- What its earlier tries failed of is over.
redis.call('HDEL', KEYS[1], 'problem', 'failures')
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
