-- Ends a batch event: its handler has taken it, or it is dropped.
-- KEYS: event, clock, parked, census, batch
-- ARGV: member, token (of the worker that holds it; "" where a handler reports that it has taken it)
-- Returns 1, or 0 where another worker holds it now, or it has ended before.
if not exists(event) or (token ~= '' and held_by_other(event, token)) then return 0 end
remove(event, census)
redis.call('HDEL', batch, 'event_problem')
redis.call('ZREM', clock, member)
redis.call('ZREM', parked, member)
return 1
