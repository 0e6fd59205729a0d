-- Writes down some of the jobs that a batch is cut into. Without a stage, they are nothing yet to anybody.
-- KEYS: 1 batch hash
-- ARGV: 1 token, 2 prefix of a job's hash, 3 prefix of a job's bitmap, 4 prefix of a job's id, 5 number of the first
--       job, 6 how many fields they have in common, 7.. these fields and values, then of each job: first ordinal,
--       last ordinal, number of requests, bitmap of them ("" for all)
-- Returns 1, or 0 if somebody else holds the batch now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local number, rest = tonumber(ARGV[5]), 7 + 2 * tonumber(ARGV[6])
for index = rest, #ARGV, 4 do
  local bitmap = ARGV[index + 3]
  redis.call('DEL', ARGV[2] .. number, ARGV[3] .. number)
  redis.call('HSET', ARGV[2] .. number, 'id', ARGV[4] .. number, 'number', number, 'first', ARGV[index],
    'last', ARGV[index + 1], 'requests', ARGV[index + 2], 'sparse', bitmap == '' and 0 or 1,
    unpack(ARGV, 7, rest - 1))
  if bitmap ~= '' then redis.call('SET', ARGV[3] .. number, bitmap) end
  number = number + 1
end
local drafted = tonumber(redis.call('HGET', KEYS[1], 'drafted') or 0)
redis.call('HSET', KEYS[1], 'drafted', math.max(drafted, number - 1))
return 1
