-- Records a new batch and puts it on the clock, once per batch id and once per idempotency key.
-- KEYS: batch, batches, clock, idempotency, destination, census
-- ARGV: batch_id, member, grace (seconds until due), fingerprint, keyed ("1" if the idempotency key counts),
--       claimed ("1" if no other batch may have the destination),
--       batch_prefix (of a batch's hash), counted (name in the census), fields... (of the batch, in pairs)
-- Returns {batch id, fingerprint} of the recorded batch: this one, or the earlier one of the same key; {batch id} of
-- another that has the destination.
-- A producer that got no reply may call it again: a batch that is recorded already stays as it is.
if exists(batch) then return {batch_id, redis.call('HGET', batch, 'fingerprint')} end
if keyed == '1' then
  local earlier = redis.call('GET', idempotency)
  if earlier then
    local space = string.find(earlier, ' ', 1, true)
    local id = string.sub(earlier, 1, space - 1)
    -- One that is being deleted, or is gone, gives up its key.
    local state = redis.call('HGET', batch_prefix .. id, 'state')
    if state and state ~= 'deleting' then
      return {id, string.sub(earlier, space + 1)}
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
count_in(batch, census, counted)
redis.call('ZADD', batches, score(time), batch_id)
redis.call('ZADD', clock, score(time + grace), member)
return {batch_id, fingerprint}
