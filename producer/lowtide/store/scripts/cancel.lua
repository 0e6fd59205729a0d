-- Asks a batch to stop: raises its flag and makes its waiting jobs due at once.
-- KEYS: 1 batch hash, 2 clock
-- ARGV: 1 prefix of a job's hash, 2 prefix of a job's member (both are followed by the job's number)
-- Returns the batch's state from before, or nil where there is no batch.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'pending' and state ~= 'running' then return state end
redis.call('HSET', KEYS[1], 'state', 'cancelling', 'cancel', '1')
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
for number = 1, tonumber(redis.call('HGET', KEYS[1], 'jobs')) do
  local busy = redis.call('HGET', ARGV[1] .. number, 'busy')
  if busy == '0' then
    redis.call('ZADD', KEYS[2], 'XX', now, ARGV[2] .. number)
  elseif busy then
    -- A worker holds it right now, and may have looked too early; taking it away would only repeat work.
    redis.call('HSET', ARGV[1] .. number, 'woken', '1')
  end
end
return state
