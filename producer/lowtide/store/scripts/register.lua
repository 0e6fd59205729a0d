-- Records a new batch and puts it on the clock, once per batch id and once per idempotency key. A batch with a lane is
-- added to the bundle that is open for that lane, whose jobs will carry its requests.
-- KEYS: batch, batches, clock, idempotency, destination, census, lane (the open bundle)
-- ARGV: batch_id, member, grace (seconds until due), fingerprint, keyed ("1" if the idempotency key counts),
--       claimed ("1" if no other batch may have the destination), batch_prefix (of a batch's hash), counted (name in the
--       census), total, size (in bytes), tokens (estimated), lane_name ("" for jobs of its own), allowed (seconds until
--       the deadline; "" where the fields have it, or the setting decides), bundle_id (for a new
--       bundle), batch_member (prefix), bundled (prefix of the set of its batches), linger (seconds until a bundle is
--       due), enough (requests of a bundle that is due at once), most (requests of a bundle), most_bytes, most_batches (of a bundle),
--       bundle_fields... (of a new bundle, in pairs), fields... (of the batch, in pairs)
-- Returns {batch id, fingerprint, due} of the recorded batch: this one, or the earlier one of the same key. `due` is the
-- batch or bundle whose work may begin now, or "". Returns {batch id} of another that has the destination.
-- A producer that got no reply may call it again: a batch that is recorded already stays as it is.
-- The fingerprint of a batch that stands. WAIT is about what its own connection wrote, so it is written again: the batch
-- may have been recorded over another connection, and not have reached the replicas yet.
local function standing(key)
  local found = redis.call('HGET', key, 'fingerprint')
  redis.call('HSET', key, 'fingerprint', found)
  return found
end
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
redis.call('HSET', batch, 'created', score(time), 'fingerprint', fingerprint, unpack(fields))
if allowed ~= '' then redis.call('HSET', batch, 'deadline', score(time + allowed)) end
count_in(batch, census, counted)
redis.call('ZADD', batches, score(time), batch_id)
if lane_name == '' then
  redis.call('ZADD', clock, score(time + grace), member)
  return {batch_id, fingerprint, batch_id}
end

total, size = tonumber(total), tonumber(size)
local bundle = redis.call('GET', lane)
if bundle then
  local open, requests, bytes, members =
    unpack(redis.call('HMGET', batch_prefix .. bundle, 'lane', 'total', 'bytes', 'bundled'))
  if open ~= lane_name then
    bundle = nil
  elseif requests + total > tonumber(most) or bytes + size > tonumber(most_bytes)
    or tonumber(members) >= tonumber(most_batches) then
    -- There is no room in it. It is not open any more, so it can be cut into jobs.
    wake(batch_prefix .. bundle, batch_member .. bundle, clock, score(time))
    bundle = nil
  end
end
if not bundle then
  bundle = bundle_id
  redis.call('HSET', batch_prefix .. bundle, 'id', bundle, 'created', score(time), 'lane', lane_name,
    unpack(bundle_fields))
  count_in(batch_prefix .. bundle, census, 'bundles|pending')
  if allowed ~= '' then redis.call('HSET', batch_prefix .. bundle, 'deadline', score(time + allowed)) end
  redis.call('SET', lane, bundle)
  redis.call('ZADD', clock, score(time + linger), batch_member .. bundle)
end
local first = redis.call('HINCRBY', batch_prefix .. bundle, 'total', total) - total
redis.call('HINCRBY', batch_prefix .. bundle, 'bytes', size)
redis.call('HINCRBY', batch_prefix .. bundle, 'tokens', tokens)
redis.call('HINCRBY', batch_prefix .. bundle, 'bundled', 1)
redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_left', 1)
redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_running', 1)
redis.call('HSET', batch, 'bundle', bundle)
redis.call('ZADD', bundled .. bundle, first, batch_id)
-- Once: with the batch that makes it enough.
return {batch_id, fingerprint, first < tonumber(enough) and first + total >= tonumber(enough) and bundle or ''}
