-- Delivers a parked batch event again.
-- KEYS: event, clock, parked, census
-- ARGV: member
-- Returns 1, or 0 where it is not parked.
if redis.call('ZREM', parked, member) == 0 or not exists(event) then return 0 end
-- A new token: a worker that is just about to remove it must not.
redis.call('HINCRBY', event, 'token', 1)
recount(event, census, 'waiting')
redis.call('HSET', event, 'tries', '0', 'busy', '0')
-- Its attempts are counted from one again.
redis.call('HDEL', event, 'begun_attempt', 'begun', 'sent_to')
redis.call('ZADD', clock, score(now()), member)
return 1
