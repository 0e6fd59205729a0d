-- Writes down some of the jobs that a batch is cut into. They have no stage yet, so no worker gets them.
-- KEYS: batch, census
-- ARGV: token, job_hash, job_carried, job_id (prefixes), first (number of the first job), counted (name in the
--       census), shared... (fields that all have, in pairs), jobs... (of each: first ordinal, last ordinal, number of
--       requests, bitmap of them or "" for all)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local number = tonumber(first)
for index = 1, #jobs, 4 do
  local bitmap = jobs[index + 3]
  remove(job_hash .. number, census)
  redis.call('DEL', job_carried .. number)
  redis.call('HSET', job_hash .. number, 'id', job_id .. number, 'number', number, 'first', jobs[index],
    'last', jobs[index + 1], 'requests', jobs[index + 2], 'sparse', bitmap == '' and 0 or 1, unpack(shared))
  count_in(job_hash .. number, census, counted)
  if bitmap ~= '' then redis.call('SET', job_carried .. number, bitmap) end
  number = number + 1
end
local drafted = tonumber(redis.call('HGET', batch, 'drafted') or 0)
redis.call('HSET', batch, 'drafted', math.max(drafted, number - 1))
return 1
