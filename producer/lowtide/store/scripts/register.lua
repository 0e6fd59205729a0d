-- Records a new batch and puts it on the clock, once per batch id and once per idempotency key.
-- KEYS: 1 batch hash, 2 sorted set of batches, 3 clock, 4 idempotency key
-- ARGV: 1 batch id, 2 member, 3 seconds until due, 4 fingerprint, 5 "1" if the idempotency key counts,
--       6 prefix of a batch's hash, 7.. field, value pairs of the hash
-- Returns {batch id, fingerprint} of the batch that stands: this one, or the earlier one of the same key.
-- Whoever had no reply may ask again: a batch that is recorded already stands as it is.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {ARGV[1], redis.call('HGET', KEYS[1], 'fingerprint')}
end
if ARGV[5] == '1' then
  local earlier = redis.call('GET', KEYS[4])
  if earlier then
    local space = string.find(earlier, ' ', 1, true)
    local id = string.sub(earlier, 1, space - 1)
    -- One that is being deleted, or is gone, gives up its key.
    local state = redis.call('HGET', ARGV[6] .. id, 'state')
    if state and state ~= 'deleting' then
      return {id, string.sub(earlier, space + 1)}
    end
  end
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
if ARGV[5] == '1' then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[4]) end
redis.call('HSET', KEYS[1], 'created', string.format('%.6f', now), 'fingerprint', ARGV[4], unpack(ARGV, 7))
redis.call('ZADD', KEYS[2], string.format('%.6f', now), ARGV[1])
redis.call('ZADD', KEYS[3], string.format('%.6f', now + ARGV[3]), ARGV[2])
return {ARGV[1], ARGV[4]}
