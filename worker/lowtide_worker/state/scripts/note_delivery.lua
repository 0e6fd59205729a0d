-- Notes at its batch what hinders the delivery of a segment, or that nothing does any more.
-- KEYS: 1 segment hash, 2 batch hash
-- ARGV: 1 token, 2 the problem ("" for none)
-- Returns 1, or 0 where nothing changed: somebody else holds the segment now, or its batch is gone.
if ARGV[2] == '' then return redis.call('HDEL', KEYS[2], 'delivery_problem') end
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'delivery_problem', ARGV[2])
return 1
