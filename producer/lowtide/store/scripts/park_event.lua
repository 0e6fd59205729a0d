-- Parks a batch event that no handler took. It stays on the clock until it is too old to be kept.
-- KEYS: event, clock, parked, census
-- ARGV: member, token, kept (seconds)
-- Returns 1, or 0 if another worker holds it now.
if held_by_other(event, token) then return 0 end
local time = now()
redis.call('HSET', event, 'busy', '0')
recount(event, census, 'parked')
redis.call('ZADD', parked, 'NX', score(time), member)
redis.call('ZADD', clock, score(time + kept), member)
return 1
