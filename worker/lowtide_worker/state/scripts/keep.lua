-- Renews the lease of long work and writes what must not be forgotten in the middle of it.
-- KEYS: entity, clock, census
-- ARGV: member, token, lease (in seconds), fields... (in pairs)
-- Returns 1, or 0 if another worker holds the entity now, or the work is done.
if held_by_other(entity, token) or redis.call('HGET', entity, 'busy') ~= '1' then return 0 end
write(entity, census, fields)
redis.call('ZADD', clock, 'XX', score(now() + lease), member)
return 1
