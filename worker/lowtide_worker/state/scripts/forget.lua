-- Removes the record of a batch whose jobs are gone, and frees its idempotency key, unless that is another batch's now.
-- KEYS: 1 batch hash, 2 bitmap of settled requests, 3 batches, 4 clock, 5 idempotency key
-- ARGV: 1 batch id, 2 batch member, 3 token
-- Returns 1, or 0 if somebody else holds the batch now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[3] then return 0 end
local standing = redis.call('GET', KEYS[5])
if standing and string.sub(standing, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('DEL', KEYS[5]) end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[2])
return 1
