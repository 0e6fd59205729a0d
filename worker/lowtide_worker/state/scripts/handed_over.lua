-- Removes a segment that its handler has taken, or parks one that no handler takes.
-- KEYS: 1 segment hash, 2 batch hash, 3 clock, 4 parked segments
-- ARGV: 1 member, 2 token, 3 "1" to park it
-- Returns 1, or 0 if somebody else holds the segment now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('HINCRBY', KEYS[2], 'undelivered', -1)
if ARGV[3] == '1' then
  redis.call('HINCRBY', KEYS[2], 'parked', 1)
  redis.call('HSET', KEYS[1], 'stage', '', 'busy', '0')
  redis.call('ZADD', KEYS[4], redis.call('TIME')[1], ARGV[1])
else
  redis.call('DEL', KEYS[1])
end
return 1
