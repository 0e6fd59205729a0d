-- Takes a job out of the live and the waiting ones and wakes those whose turn has come.
-- KEYS: job, live, waiting, limit (lowered), clock
-- ARGV: token, job_id, most (live jobs), job_hash, job_member (prefixes), change (what the limit does: "lower", "raise"
--       or ""), lowered_ms (how long a lowered limit lasts)
-- Returns how many were woken, -1 if another worker holds the job now: it may have a slot for good reason.
if held_by_other(job, token) then return -1 end
if change == 'lower' then
  redis.call('SET', limit, math.max(1, redis.call('ZCARD', live) - 1), 'PX', lowered_ms)
elseif change == 'raise' then
  if exists(limit) then redis.call('INCR', limit) end
end
if change ~= 'raise' then
  redis.call('ZREM', live, job_id)
  redis.call('ZREM', waiting, job_id)
end
local slots = math.min(tonumber(most), tonumber(redis.call('GET', limit) or most))
local free = slots - redis.call('ZCARD', live)
if free <= 0 then return 0 end
local due = score(now())
local woken = redis.call('ZRANGE', waiting, 0, free - 1)
for _, other in ipairs(woken) do
  if exists(job_hash .. other) then
    wake(job_hash .. other, job_member .. other, clock, due)
  else
    -- Its batch is deleted; it must not stand before the others.
    redis.call('ZREM', waiting, other)
  end
end
return #woken
