-- Asks a batch to stop: raises its flag and makes its waiting jobs due at once.
-- KEYS: batch, clock (of create and poll), census
-- ARGV: job_hash, job_member (prefixes, followed by the job's number)
-- Returns the batch's state from before, or nil where there is no batch.
local state = redis.call('HGET', batch, 'state')
if state ~= 'pending' and state ~= 'running' then return state end
redis.call('HSET', batch, 'state', 'cancelling', 'cancel', '1')
recount(batch, census, 'cancelling')
local due = score(now())
for number = 1, tonumber(redis.call('HGET', batch, 'jobs')) do
  wake(job_hash .. number, job_member .. number, clock, due)
end
return state
