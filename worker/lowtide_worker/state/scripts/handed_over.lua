-- Removes a segment that its handler has taken, or parks one that no handler takes.
-- KEYS: segment, batch, clock, parked, census, latencies, job
-- ARGV: member (of the segment), token, parks ("1" to park it), latency (its name), bounds... (of the histogram, in
--       seconds)
-- Returns 1, or 0 if another worker holds the segment now.
if held_by_other(segment, token) then return 0 end
redis.call('ZREM', clock, member)
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if not exists(batch) then
  remove(segment, census)
  return 1
end
redis.call('HINCRBY', batch, 'undelivered', -1)
if parks == '1' then
  redis.call('HINCRBY', batch, 'parked', 1)
  redis.call('HSET', segment, 'stage', '', 'busy', '0')
  recount(segment, census, 'parked')
  redis.call('ZADD', parked, math.floor(now()), member)
else
  remove(segment, census)
  local ended = finite(redis.call('HGET', job, 'ended'))
  if ended then observe(latencies, latency, now() - ended, bounds) end
end
return 1
