-- Counts how often a handler has begun an attempt at a delivery.
-- KEYS: segment
-- ARGV: attempt
-- Returns how often with this one, or 0 where that does not count: the delivery is over, or a later attempt has begun.
if not exists(segment) then return 0 end
local before = finite(redis.call('HGET', segment, 'begun_attempt')) or 0
if before > tonumber(attempt) then return 0 end
if before < tonumber(attempt) then redis.call('HSET', segment, 'begun_attempt', attempt, 'begun', '0') end
local begun = increase(segment, 'begun', 1)
return type(begun) == 'number' and begun or 1
