-- Records some of the jobs that a batch is cut into. Without a stage, no worker takes them yet.
-- KEYS: batch
-- ARGV: token, job_hash, job_carried, job_id (prefixes), first (number of the first job), shared... (fields that all
--       have, in pairs), jobs... (of each: first ordinal, last ordinal, number of requests, bitmap of them or "" for all)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local number = tonumber(first)
for index = 1, #jobs, 4 do
  local bitmap = jobs[index + 3]
  redis.call('DEL', job_hash .. number, job_carried .. number)
  redis.call('HSET', job_hash .. number, 'id', job_id .. number, 'number', number, 'first', jobs[index],
    'last', jobs[index + 1], 'requests', jobs[index + 2], 'sparse', bitmap == '' and 0 or 1, unpack(shared))
  if bitmap ~= '' then redis.call('SET', job_carried .. number, bitmap) end
  number = number + 1
end
local drafted = tonumber(redis.call('HGET', batch, 'drafted') or 0)
redis.call('HSET', batch, 'drafted', math.max(drafted, number - 1))
return 1
