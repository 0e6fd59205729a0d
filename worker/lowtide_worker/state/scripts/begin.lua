-- Starts the work a message asks for, if it is still asked for: the dispatch token is used up.
-- KEYS: entity, clock, batch, census
-- ARGV: member, stage, token, lease (in seconds), version (newest schema known here), job_hash (prefix), pause (seconds
--       until a newer entity is tried again), absent (the answer where there is no such entity), oldest (schema known
--       here), older_pause (seconds until an older entity is tried again), older_problem (of its batch meanwhile)
-- Returns {absent}, {"gone"} (its batch is deleted), {"stale"}, {"newer"}, {"older"}, or
--         {"held", token, time, fields of the entity, fields of its batch, fields of a segment's job}.
local found = redis.call('HMGET', entity, 'stage', 'token', 'v', 'job_id')
if not found[1] then return {absent} end
if not exists(batch) then
  remove(entity, census)
  redis.call('ZREM', clock, member)
  return {'gone'}
end
local time = now()
-- Where it is no number, the record is damaged, and its stage says so.
local written = finite(found[3])
if written and written > tonumber(version) then
  -- Soon, not after a lease: the next message may reach a worker that understands it.
  redis.call('ZADD', clock, 'XX', score(time + pause), member)
  return {'newer'}
end
if found[1] ~= stage or found[2] ~= token then return {'stale'} end
-- A handler of an older version writes its own version into a segment. The version of the batch decides.
if written and written < tonumber(oldest)
  and (finite(redis.call('HGET', batch, 'v')) or 0) < tonumber(oldest) then
  redis.call('ZADD', clock, 'XX', score(time + older_pause), member)
  redis.call('HSET', batch, 'problem', older_problem)
  return {'older'}
end
local held = redis.call('HINCRBY', entity, 'token', 1)
redis.call('HSET', entity, 'busy', '1')
redis.call('ZADD', clock, 'XX', score(time + lease), member)
return {'held', held, score(time), redis.call('HGETALL', entity), redis.call('HGETALL', batch),
  found[4] and redis.call('HGETALL', job_hash .. found[4]) or {}}
