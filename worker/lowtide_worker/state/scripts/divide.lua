-- Divides a job that is not created yet: it keeps the first of its requests, and a new job gets the others.
-- KEYS: job, batch, clock, carried (prefix of the bitmap of a job), census
-- ARGV: token, job_hash, job_member (prefixes), counted (name in the census), kept_bitmap,
--       bitmap (of the new job; both "" for all of a range), numbers (see numbers.lua), kept... (fields of the job, in pairs), fields... (of the new
--       job, in pairs; its id and number are added)
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
local id, number = unpack(redis.call('HMGET', job, 'batch_id', 'number'))
local new = number_of(1)
redis.call('HINCRBY', batch, 'open', 1)
redis.call('HSET', job, unpack(kept))
redis.call('HSET', job_hash .. new, 'id', id .. '-' .. new, 'number', new, unpack(fields))
if bitmap ~= '' then
  redis.call('SET', carried .. number, kept_bitmap)
  redis.call('SET', carried .. new, bitmap)
end
count_in(job_hash .. new, census, counted)
redis.call('ZADD', clock, score(now()), job_member .. new)
return 1
