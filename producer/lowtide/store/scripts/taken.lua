-- Ends the delivery of a segment that its handler has taken.
-- KEYS: batch, segment, clock, parked
-- ARGV: member (of the segment)
-- Returns 1, or 0 where no delivery waits for the answer: it came before, the batch is gone, or the results are not stored yet.
-- That happens after Redis went back in time: the segment is stored again, and comes again.
if redis.call('HGET', segment, 'stored') ~= '1' then return 0 end
redis.call('DEL', segment)
redis.call('ZREM', clock, member)
local counter = redis.call('ZREM', parked, member) == 1 and 'parked' or 'undelivered'
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if exists(batch) then redis.call('HINCRBY', batch, counter, -1) end
return 1
