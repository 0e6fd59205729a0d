-- Ends the parking of a segment: delivers it again, or drops it.
-- KEYS: segment, batch, parked, clock, census
-- ARGV: member (of the segment), stage (to go to; "" drops it)
-- Returns 1, or 0 where the segment is not parked, or its batch is deleted.
if redis.call('ZREM', parked, member) == 0 then return 0 end
if not exists(batch) then
  remove(segment, census)
  return 0
end
increase(batch, 'parked', -1)
if stage == '' then
  remove(segment, census)
  return 1
end
redis.call('HINCRBY', segment, 'token', 1)
redis.call('HSET', segment, 'stage', stage, 'tries', '0', 'busy', '0')
recount(segment, census, 'undelivered')
-- Its attempts are counted from one again.
redis.call('HDEL', segment, 'begun_attempt', 'begun')
increase(batch, 'undelivered', 1)
redis.call('ZADD', clock, score(now()), member)
return 1
