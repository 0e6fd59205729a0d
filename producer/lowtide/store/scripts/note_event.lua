-- Notes at its batch what hinders the delivery of a batch event.
-- KEYS: batch
-- ARGV: problem
-- Returns 1, or 0 where the batch is deleted.
if not exists(batch) then return 0 end
redis.call('HSET', batch, 'event_problem', problem)
return 1
