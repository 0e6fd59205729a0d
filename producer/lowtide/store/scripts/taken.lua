-- Ends the delivery of a segment that its handler has taken.
-- KEYS: 1 batch hash, 2 segment hash, 3 clock, 4 parked segments
-- ARGV: 1 segment member
-- Returns 1, or 0 where nobody waits for the word: it came before, the batch is gone, or the results are not stored yet.
-- That happens after Redis went back in time: the segment is stored again, and comes again.
if redis.call('HGET', KEYS[2], 'stored') ~= '1' then return 0 end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
local counter = redis.call('ZREM', KEYS[4], ARGV[1]) == 1 and 'parked' or 'undelivered'
-- Its batch may have been deleted meanwhile; a counter would bring back a part of it.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBY', KEYS[1], counter, -1) end
return 1
