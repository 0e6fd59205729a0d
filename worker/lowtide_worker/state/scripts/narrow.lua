-- Leaves a job that is not created yet some of its requests: the others are settled already.
-- KEYS: job, carried (its bitmap)
-- ARGV: token, bitmap, kept... (fields of the job, in pairs)
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
redis.call('HSET', job, unpack(kept))
redis.call('SET', carried, bitmap)
return 1
