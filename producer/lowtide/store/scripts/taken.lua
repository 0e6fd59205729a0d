-- Ends the delivery of a segment that its handler has taken.
-- KEYS: batch, segment, clock, parked, census, latencies, job
-- ARGV: member (of the segment), latency (its name), bounds... (of the histogram, in seconds)
-- Returns 1, or 0 where no answer is expected: it came before, the batch is gone, or the results are not stored yet.
-- That happens after Redis went back in time: the segment is stored again, and comes again.
if redis.call('HGET', segment, 'stored') ~= '1' then return 0 end
remove(segment, census)
redis.call('ZREM', clock, member)
local counter = redis.call('ZREM', parked, member) == 1 and 'parked' or 'undelivered'
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if exists(batch) then
  increase(batch, counter, -1)
  forget_failed_delivery(batch, member)
end
local ended = finite(redis.call('HGET', job, 'ended'))
if ended then observe(latencies, latency, now() - ended, bounds) end
return 1
