-- Has a job that is being collected begin at the first byte of its output again: the output is another one now.
-- KEYS: job, batch
-- ARGV: token, paid... (counters of paid tokens)
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
redis.call('HSET', job, 'collected', '{}', 'recollected', redis.call('HGET', job, 'segments') or 0)
redis.call('HDEL', job, 'retried_by')
take_back_paid(job, batch, paid)
return 1
