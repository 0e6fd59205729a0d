-- Puts a batch event back on the clock because its handler failed.
-- KEYS: event, clock, parked, batch
-- ARGV: member, pause (seconds until due), attempt (that failed), problem
-- Returns 1, or 0 where no answer is expected: it has ended or is parked, or this attempt was handed back before.
if not exists(event) or redis.call('ZSCORE', parked, member) then return 0 end
if (finite(redis.call('HGET', event, 'tries')) or 0) >= tonumber(attempt) then return 0 end
-- A new token: a worker that is just finishing the earlier attempt must not remove it.
redis.call('HINCRBY', event, 'token', 1)
redis.call('HDEL', event, 'sent_to')
redis.call('HSET', event, 'tries', attempt, 'problem', problem, 'busy', '0')
redis.call('ZADD', clock, score(now() + pause), member)
if exists(batch) then redis.call('HSET', batch, 'event_problem', problem) end
return 1
