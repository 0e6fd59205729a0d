-- Leaves a job that is not created yet some of its requests: the others are settled already. Budgets that only those were
-- under hold nothing for the job any more; the script of admission corrects what the others hold.
-- KEYS: job, carried (its bitmap), clock
-- ARGV: token, bitmap, job_id, member, under (JSON: names of the budgets that the requests may be under; "" where the job is
--       under none), job_hash (prefix), entity_prefix, reserved_prefix, waiting_for_prefix (see budgets.lua), kept...
--       (fields of the job, in pairs)
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
redis.call('HSET', job, unpack(kept))
redis.call('SET', carried, bitmap)
if under ~= '' then wake_for(leave_budgets(job, job_id, member, decoded(under)), clock) end
return 1
