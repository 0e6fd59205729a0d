-- Notes that a poll found a job ended whose event did not come. If events came until then, the other jobs of the
-- provider are polled now: they wait for events, and may have ended long ago.
-- KEYS: job, hooks, live, clock
-- ARGV: poll_stage, job_hash, job_member (prefixes)
-- Returns 1 if events came until now, else 0; 0 too if the event has come meanwhile.
if redis.call('HGET', job, 'hinted') then return 0 end
local time = now()
local received, missed = redis.call('ZSCORE', hooks, 'received'), redis.call('ZSCORE', hooks, 'missed')
-- What came by a clock that was set back since is no later.
redis.call('ZADD', hooks, score(math.max(time, tonumber(received or 0) + 1e-3)), 'missed')
if missed and tonumber(missed) >= tonumber(received or 0) then return 0 end
for _, id in ipairs(redis.call('ZRANGE', live, 0, -1)) do
  if redis.pcall('HGET', job_hash .. id, 'stage') == poll_stage then
    if job_hash .. id ~= job then wake(job_hash .. id, job_member .. id, clock, score(time)) end
  end
end
return 1
