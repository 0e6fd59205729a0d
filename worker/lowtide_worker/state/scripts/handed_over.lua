-- Removes a segment that its handler has taken, or parks one that no handler takes.
-- KEYS: segment, batch, clock, parked
-- ARGV: member (of the segment), token, parks ("1" to park it)
-- Returns 1, or 0 if another worker holds the segment now.
if held_by_other(segment, token) then return 0 end
redis.call('ZREM', clock, member)
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if not exists(batch) then
  redis.call('DEL', segment)
  return 1
end
redis.call('HINCRBY', batch, 'undelivered', -1)
if parks == '1' then
  redis.call('HINCRBY', batch, 'parked', 1)
  redis.call('HSET', segment, 'stage', '', 'busy', '0')
  redis.call('ZADD', parked, math.floor(now()), member)
else
  redis.call('DEL', segment)
end
return 1
