-- Removes the record of a batch whose jobs are gone, and frees its idempotency key and its destination, unless they are
-- another batch's now. With the last batch of a bundle, the bundle is due to be deleted.
-- KEYS: batch, settled (bitmap), batches, clock, idempotency, destination, census, bundled (set of batches, where it is
--       a bundle), requests (of these batches)
-- ARGV: batch_id, member, token, batch_prefix (of a batch's hash), batch_member (prefix)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local standing = redis.call('GET', idempotency)
if standing and string.sub(standing, 1, #batch_id + 1) == batch_id .. ' ' then redis.call('DEL', idempotency) end
if redis.call('GET', destination) == batch_id then redis.call('DEL', destination) end
local bundle = redis.call('HGET', batch, 'bundle')
if bundle and bundle ~= '' and exists(batch_prefix .. bundle) then
  if redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_left', -1) == 0
    and redis.call('HGET', batch_prefix .. bundle, 'stage') == redis.call('HGET', batch, 'stage') then
    wake(batch_prefix .. bundle, batch_member .. bundle, clock, score(now()))
  end
end
remove(batch, census)
publish(batch, '')
redis.call('DEL', bundled, requests, settled)
redis.call('ZREM', batches, batch_id)
redis.call('ZREM', clock, member)
return 1
