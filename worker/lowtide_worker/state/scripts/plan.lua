-- Puts the jobs that a batch was cut into on the clock, and takes the batch off it. What the store had of the requests of
-- a bundle is removed: its files are on the disk, and no worker writes them again.
-- KEYS: batch, clock, census, requests (hash of those of a bundle)
-- ARGV: member (of the batch), token, job_hash, job_member, job_carried (prefixes), jobs (their number), stage (theirs)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local due = score(now())
for number = 1, tonumber(jobs) do
  redis.call('HSET', job_hash .. number, 'stage', stage)
  redis.call('ZADD', clock, due, job_member .. number)
end
-- A run that died may have cut it into more.
for number = jobs + 1, tonumber(redis.call('HGET', batch, 'drafted')) do
  remove(job_hash .. number, census)
  redis.call('DEL', job_carried .. number)
end
redis.call('HDEL', batch, 'drafted')
redis.call('HSET', batch, 'stage', '', 'busy', '0', 'jobs', jobs, 'open', jobs)
if redis.call('HGET', batch, 'cancel') == '0' then
  redis.call('HSET', batch, 'state', 'running')
  recount(batch, census, 'running')
end
-- What its earlier tries failed of is over.
redis.call('HDEL', batch, 'problem', 'failures')
redis.call('ZREM', clock, member)
redis.call('DEL', requests)
return 1
