-- Gives a job a slot among the provider's live jobs, if there is one and no job of a higher rank waits for it.
-- KEYS: job, live (sorted set of jobs), waiting (sorted set of jobs), limit (lowered)
-- ARGV: token, job_id, most (live jobs), priority (of the batch), created (when the batch was)
-- Returns 1 if admitted, 0 if the job must wait, -1 if another worker holds it now.
if held_by_other(job, token) then return -1 end
if redis.call('ZSCORE', live, job_id) then return 1 end
-- Higher priority first, then age: ten digits of seconds below the priority.
redis.call('ZADD', waiting, 'NX', string.format('%.3f', created - priority * 1e10), job_id)
local slots = math.min(tonumber(most), tonumber(redis.call('GET', limit) or most))
if redis.call('ZRANK', waiting, job_id) >= slots - redis.call('ZCARD', live) then return 0 end
redis.call('ZREM', waiting, job_id)
redis.call('ZADD', live, string.format('%.3f', now()), job_id)
return 1
