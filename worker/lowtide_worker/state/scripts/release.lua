-- Takes a job out of the live and the waiting ones and wakes those whose turn has come.
-- KEYS: job, live, limit (lowered number of slots), models, clock
-- ARGV: token, job_id, most (live jobs), model, job_hash, job_member (prefixes), waiting_prefix, tokens_prefix,
--       quota_prefix (see turns.lua)
-- Returns how many were woken, -1 if another worker holds the job now: it may have a slot for good reason.
if held_by_other(job, token) then return -1 end
leave(job, model, job_id)
return wake_next(clock, job_member)
