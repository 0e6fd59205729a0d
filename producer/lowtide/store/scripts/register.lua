-- Records a new batch and puts it on the clock, once per batch id and once per idempotency key. A batch with a lane is
-- added to the bundle that is open for that lane, whose jobs will carry its requests.
-- KEYS: installation, batch, batches, clock, idempotency, destination, census, lane (the open bundle)
-- ARGV: installation_id, batch_id, member, grace (seconds until due), fingerprint, keyed ("1" if the idempotency key counts),
--       claimed ("1" if no other batch may have the destination), batch_prefix (of a batch's hash), counted (name in the
--       census), total, size (in bytes), tokens (estimated), output (most output tokens; "" if not counted), lane_name (""
--       for jobs of its own), allowed (seconds until the deadline; "" where the fields have it, or the setting decides),
--       bundle_id (for a new bundle), batch_member (prefix), bundled (prefix of the set of its batches), linger (seconds
--       until a bundle is due), enough (requests of a bundle that is due at once), most (requests of a bundle),
--       most_bytes, most_batches (of a bundle), requests (of a small batch, compressed; "" where they are in the
--       spool), requests_prefix (of the hash of those of a bundle),
--       bundle_fields (of a new bundle), fields (of the batch; both are names and values in MessagePack)
-- Returns {batch id, fingerprint, due} of the recorded batch: this one, or the earlier one of the same key. `due` is the
-- batch or bundle whose work may begin now, or "". Returns {batch id} of another that has the destination.
-- Returns {} where Redis is not this installation's any more: it was emptied or replaced a moment ago.
-- A producer that got no reply may call it again: a batch that is recorded already stays as it is.
-- The fingerprint of a batch that stands. WAIT is about what its own connection wrote, so it is written again: the batch
-- may have been recorded over another connection, and not have reached the replicas yet.
local function standing(key)
  local found = redis.call('HGET', key, 'fingerprint')
  redis.call('HSET', key, 'fingerprint', found)
  return found
end
if redis.call('GET', installation) ~= installation_id then return {} end
if exists(batch) then return {batch_id, standing(batch), ''} end
if keyed == '1' then
  local earlier = redis.call('GET', idempotency)
  if earlier then
    local space = string.find(earlier, ' ', 1, true)
    local id = string.sub(earlier, 1, space - 1)
    -- One that is being deleted, or is gone, gives up its key.
    local state = redis.call('HGET', batch_prefix .. id, 'state')
    if state and state ~= 'deleting' then
      return {id, standing(batch_prefix .. id), ''}
    end
  end
end
if claimed == '1' then
  local holder = redis.call('GET', destination)
  if holder and exists(batch_prefix .. holder) then return {holder} end
  redis.call('SET', destination, batch_id)
end
local time = now()
if keyed == '1' then redis.call('SET', idempotency, batch_id .. ' ' .. fingerprint) end
redis.call('HSET', batch, 'created', score(time), 'fingerprint', fingerprint,
  unpack(cmsgpack.unpack(fields)))
if allowed ~= '' then redis.call('HSET', batch, 'deadline', score(time + allowed)) end
count_in(batch, census, counted)
redis.call('ZADD', batches, score(time), batch_id)
put_event(batch, 'progress', redis.call('HGET', batch, 'on_progress'), census, clock, time)
if lane_name == '' then
  redis.call('ZADD', clock, score(time + grace), member)
  return {batch_id, fingerprint, batch_id}
end

return {batch_id, fingerprint, join_bundle(time, time + grace)}
