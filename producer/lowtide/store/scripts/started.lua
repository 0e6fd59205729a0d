-- Counts how often a handler has begun an attempt at a delivery.
-- KEYS: 1 segment hash
-- ARGV: 1 attempt
-- Returns how often with this one, or 0 where nobody waits for it: it is over, or a later attempt has begun.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local before = tonumber(redis.call('HGET', KEYS[1], 'begun_attempt') or 0)
if before > tonumber(ARGV[1]) then return 0 end
if before < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'begun_attempt', ARGV[1], 'begun', '0') end
return redis.call('HINCRBY', KEYS[1], 'begun', 1)
