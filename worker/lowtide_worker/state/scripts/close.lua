-- Closes a job whose requests are all settled, or handed on to a retry job; with the last, ends the batch.
-- KEYS: 1 job hash, 2 batch hash, 3 clock, 4 bitmap of the retry job's rows
-- ARGV: 1 job member, 2 token, 3 stage of the closed job, 4 batch member, 5 stage of the finished batch,
--       6 seconds a finished batch is kept, 7 prefix of a job's hash, 8 prefix of a job's member,
--       9 error of the job as JSON ("" for none), 10 bitmap of the retry job's rows ("" for no retry job),
--       11 "1" if the results of the batch are tidy, which its last job must see to, 12.. field, value pairs of the
--       retry job (its id and number are added here)
-- Returns {closed (0 or 1), final state of the batch or ""}; with nothing changed {1, "untidy"} where 11 is wanting, and
-- {1, "unbalanced"} where the batch's last job leaves requests without a result.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return {0, ''} end
local last = ARGV[10] == '' and tonumber(redis.call('HGET', KEYS[2], 'open')) <= 1
local count = {}
if last then
  count = redis.call('HMGET', KEYS[2], 'total', 'succeeded', 'failed', 'expired', 'cancelled')
  for index = 1, 5 do count[index] = tonumber(count[index] or 0) end
  if count[1] ~= count[2] + count[3] + count[4] + count[5] then return {1, 'unbalanced'} end
  if ARGV[11] ~= '1' then return {1, 'untidy'} end
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local due = string.format('%.6f', now)
redis.call('HSET', KEYS[1], 'stage', ARGV[3], 'busy', '0')
redis.call('ZADD', KEYS[3], due, ARGV[1])
if ARGV[9] ~= '' then redis.call('HSET', KEYS[2], 'error', ARGV[9]) end
if ARGV[10] ~= '' then
  local number = redis.call('HINCRBY', KEYS[2], 'jobs', 1)
  local member = ARGV[8] .. number
  redis.call('SET', KEYS[4] .. number, ARGV[10])
  redis.call('HSET', ARGV[7] .. number, 'id', string.sub(member, 5), 'number', number, unpack(ARGV, 12))
  redis.call('ZADD', KEYS[3], due, member)
  return {1, ''}
end
redis.call('HINCRBY', KEYS[2], 'open', -1)
if not last then return {1, ''} end
local state = 'completed'
if count[5] > 0 then state = 'cancelled'
elseif count[4] > 0 then state = 'expired'
elseif count[2] == 0 then state = 'failed' end
redis.call('HSET', KEYS[2], 'state', state, 'finished', due, 'stage', ARGV[5], 'busy', '0')
redis.call('ZADD', KEYS[3], string.format('%.6f', now + ARGV[6]), ARGV[4])
return {1, state}
