-- Takes a job out of the live and the waiting ones and wakes those whose turn has come.
-- KEYS: job, live, limit (lowered number of slots), models, served, clock
-- ARGV: token, job_id, most (live jobs), model, job_hash, job_member (prefixes), waiting_prefix, strand_prefix,
--       strands_prefix, strand_of_prefix, share_prefix, matched_prefix (see shares.lua), tokens_prefix, quota_prefix (see turns.lua), entity_prefix, reserved_prefix, waiting_for_prefix (see budgets.lua), unsent ("1" if
--       the provider has no job of it: its budgets hold nothing for it any more)
-- Returns how many were woken, -1 if another worker holds the job now: it may have a slot for good reason.
if held_by_other(job, token) then return -1 end
leave(job, model, job_id)
if unsent == '1' then wake_for(give_back(job, job_id, job_member .. job_id), clock) end
return wake_next(clock, job_member)
