-- Gives a job a slot among the provider's live jobs, if there is one and nobody with more right waits for it.
-- KEYS: 1 job hash, 2 live jobs (sorted set), 3 waiting jobs (sorted set), 4 lowered limit
-- ARGV: 1 token, 2 job id, 3 most live jobs, 4 batch priority, 5 when the batch was created
-- Returns 1 if admitted, 0 if the job must wait, -1 if somebody else holds it now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 1 end
-- Higher priority first, then age: ten digits of seconds below the priority.
redis.call('ZADD', KEYS[3], 'NX', string.format('%.3f', ARGV[5] - ARGV[4] * 1e10), ARGV[2])
local limit = math.min(tonumber(ARGV[3]), tonumber(redis.call('GET', KEYS[4]) or ARGV[3]))
if redis.call('ZRANK', KEYS[3], ARGV[2]) >= limit - redis.call('ZCARD', KEYS[2]) then return 0 end
redis.call('ZREM', KEYS[3], ARGV[2])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%.3f', time[1] + time[2] / 1e6), ARGV[2])
return 1
