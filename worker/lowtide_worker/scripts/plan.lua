-- Records the jobs a batch was cut into and takes the batch off the clock.
-- KEYS: 1 batch hash, 2 clock
-- ARGV: 1 batch member, 2 token, 3 prefix of a job's hash, 4 prefix of a job's member, 5 number of jobs,
--       6 fields per job, 7.. field, value pairs, job after job
-- Returns 1, or 0 if somebody else holds the batch now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
local jobs, width = tonumber(ARGV[5]), tonumber(ARGV[6]) * 2
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
for number = 1, jobs do
  local start = 7 + (number - 1) * width
  redis.call('HSET', ARGV[3] .. number, unpack(ARGV, start, start + width - 1))
  redis.call('ZADD', KEYS[2], now, ARGV[4] .. number)
end
redis.call('HSET', KEYS[1], 'stage', '', 'busy', '0', 'jobs', jobs, 'open', jobs)
if redis.call('HGET', KEYS[1], 'cancel') == '0' then redis.call('HSET', KEYS[1], 'state', 'running') end
-- What its earlier tries failed of is over.
redis.call('HDEL', KEYS[1], 'problem', 'failures')
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
