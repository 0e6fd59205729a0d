-- Has a job that is being collected begin at the first byte of its output again: the output is another one now.
-- KEYS: job
-- ARGV: token
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
collect_again(job)
return 1
