-- Gives a job a slot among the provider's live jobs, and tokens of its model, if it is its turn and both are free.
-- KEYS: job, live (sorted set of jobs), limit (lowered number of slots), models (sorted set: those that jobs wait for)
-- ARGV: token, job_id, most (live jobs), priority (of the batch), created (when the batch was), model, configured (limit
--       of its enqueued tokens; "" for none), tokens (estimated, of the job), least (of them that it needs), job_hash,
--       waiting_prefix (of a model's line), tokens_prefix (of a model's live tokens), quota_prefix
-- Returns the estimated tokens that the job may have: fewer than it has where it is to be divided. 0 if it must wait, -1
-- if another worker holds it now.
if held_by_other(job, token) then return -1 end
tokens = tonumber(tokens)
local time = now()
redis.call('HSET', job, 'tokens', tokens, 'least', least)
if redis.call('ZSCORE', live, job_id) then
  local granted = tonumber(redis.call('HGET', job, 'granted') or '') or tokens
  local given = tonumber(redis.call('HGET', tokens_prefix .. model, job_id) or granted)
  if tokens >= granted then return granted end
  -- It was divided: what is more than it needs is free.
  redis.call('HSET', job, 'granted', tokens)
  redis.call('HSET', tokens_prefix .. model, job_id, math.ceil(given * tokens / granted))
  return tokens
end
local quota = read_quota(quota_prefix .. model)
if quota.configured ~= tonumber(configured) then
  quota.configured = tonumber(configured)
  write_quota(quota_prefix .. model, quota)
end
-- A job that waits asks again within the hour.
redis.call('ZADD', models, score(time), model)
redis.call('ZREMRANGEBYSCORE', models, '-inf', score(time - 604800))
-- Higher priority first, then age: ten digits of seconds below the priority.
redis.call('ZADD', waiting_prefix .. model, 'NX', string.format('%.3f', created - priority * 1e10), job_id)
local found, short = next_jobs()
for _, one in ipairs(found) do
  if one.id == job_id then
    redis.call('ZREM', waiting_prefix .. model, job_id)
    redis.call('ZADD', live, string.format('%.3f', time), job_id)
    redis.call('HSET', tokens_prefix .. model, job_id, one.given)
    redis.call('HSET', job, 'granted', one.part, 'awaits', '')
    return one.part
  end
end
redis.call('HSET', job, 'awaits', short[model] and 'tokens' or 'slot')
return 0
