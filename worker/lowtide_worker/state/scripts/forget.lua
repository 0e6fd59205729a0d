-- Removes the record of a batch whose jobs are gone, and frees its idempotency key and its destination,
-- unless they are another batch's now.
-- KEYS: batch, settled (bitmap), batches, clock, idempotency, destination, census
-- ARGV: batch_id, member, token
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local standing = redis.call('GET', idempotency)
if standing and string.sub(standing, 1, #batch_id + 1) == batch_id .. ' ' then redis.call('DEL', idempotency) end
if redis.call('GET', destination) == batch_id then redis.call('DEL', destination) end
remove(batch, census)
redis.call('DEL', settled)
redis.call('ZREM', batches, batch_id)
redis.call('ZREM', clock, member)
return 1
