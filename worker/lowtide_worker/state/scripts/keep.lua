-- Renews the lease of long work and writes what must not be forgotten in the middle of it.
-- KEYS: 1 entity's hash, 2 clock
-- ARGV: 1 member, 2 token, 3 lease in seconds, 4.. field, value pairs
-- Returns 1, or 0 if somebody else holds the entity now, or the work is done.
local found = redis.call('HMGET', KEYS[1], 'token', 'busy')
if found[1] ~= ARGV[2] or found[2] ~= '1' then return 0 end
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[3]), ARGV[1])
return 1
