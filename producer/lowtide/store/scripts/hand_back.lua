-- Puts a delivered segment back on the clock because its handler failed.
-- KEYS: batch, segment, clock, parked, census, job
-- ARGV: member (of the segment), number (of the segment), pause (seconds until due), attempt (that failed), fields... (of the segment, in pairs)
-- Returns 1, or 0 where no answer is expected: the batch is gone, the segment is parked, this attempt was handed back
-- before (a second copy of its message), or the results are not stored yet (Redis went back in time: the segment is
-- stored again, and comes again).
if not exists(batch) or redis.call('ZSCORE', parked, member) then return 0 end
if (finite(redis.call('HGET', segment, 'tries')) or 0) >= tonumber(attempt) then return 0 end
if not exists(segment) then
  if tonumber(number) >= (finite(redis.call('HGET', job, 'segments')) or 0) then return 0 end
  increase(batch, 'undelivered', 1)
  count_in(segment, census, 'segments|undelivered')
elseif redis.call('HGET', segment, 'stored') ~= '1' then
  return 0
end
-- A new token: a worker that is just finishing the earlier delivery must not remove this one.
redis.call('HINCRBY', segment, 'token', 1)
redis.call('HSET', segment, unpack(fields))
local due = now() + pause
-- The status of the batch shows it too.
redis.call('HSET', batch, 'delivery_problem', redis.call('HGET', segment, 'problem'),
  'delivery_failed', failed_delivery(member, attempt, redis.call('HGET', segment, 'most_tries'), due))
redis.call('ZADD', clock, score(due), member)
return 1
