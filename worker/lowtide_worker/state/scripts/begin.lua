-- Starts the work a message asks for, if it is still asked for: the dispatch token is used up.
-- KEYS: 1 entity's hash, 2 clock, 3 batch hash
-- ARGV: 1 member, 2 stage, 3 token, 4 lease in seconds, 5 newest schema version known here, 6 prefix of a job's hash,
--       7 seconds until a newer one is tried again, 8 oldest schema version known here, 9 seconds until an older one is
--       tried again, 10 the problem of its batch meanwhile
-- Returns {"missing"}, {"gone"} (its batch is deleted), {"stale"}, {"newer"}, {"older"}, or
--         {"held", token, time, fields of the entity, fields of its batch, fields of a segment's job}.
local found = redis.call('HMGET', KEYS[1], 'stage', 'token', 'v', 'job_id')
if not found[1] then
  -- What is done with goes, a segment delivered or deleted with its batch, and a deleted batch: this message came once
  -- too often.
  if string.sub(ARGV[1], 1, 8) == 'segment:' or ARGV[2] == 'lowtide.delete' then return {'stale'} end
  return {'missing'}
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return {'gone'}
end
local time = redis.call('TIME')
if tonumber(found[3]) > tonumber(ARGV[5]) then
  -- Soon, not after a lease: the next message may reach a worker that understands it.
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[7]), ARGV[1])
  return {'newer'}
end
if tonumber(found[3]) < tonumber(ARGV[8]) then
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[9]), ARGV[1])
  redis.call('HSET', KEYS[3], 'problem', ARGV[10])
  return {'older'}
end
if found[1] ~= ARGV[2] or found[2] ~= ARGV[3] then return {'stale'} end
local token = redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSET', KEYS[1], 'busy', '1')
redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[4]), ARGV[1])
return {'held', token, time[1] .. '.' .. string.format('%06d', time[2]), redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[3]), found[4] and redis.call('HGETALL', ARGV[6] .. found[4]) or {}}
