-- Notes on a batch the reason why its segments make no progress; "" where they do again.
-- KEYS: segment, batch
-- ARGV: token, problem
-- Returns 1, or 0 if another worker holds the segment now, or the batch is deleted.
if held_by_other(segment, token) or not exists(batch) then return 0 end
redis.call('HSET', batch, 'problem', problem)
return 1
