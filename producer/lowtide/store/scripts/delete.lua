-- Marks a finished batch for deletion, here and at the provider.
-- KEYS: 1 batch hash, 2 clock
-- ARGV: 1 member, 2 the delete stage, 3.. states that count as finished
-- Returns the state from before, or nil where there is no batch. Nothing changes unless it is finished.
local state = redis.call('HGET', KEYS[1], 'state')
for index = 3, #ARGV do
  if state == ARGV[index] then
    local time = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'state', 'deleting', 'stage', ARGV[2], 'busy', '0')
    -- A new token: a worker that has just decided to keep it longer must not put it off.
    redis.call('HINCRBY', KEYS[1], 'token', 1)
    redis.call('ZADD', KEYS[2], string.format('%.6f', time[1] + time[2] / 1e6), ARGV[1])
  end
end
return state
