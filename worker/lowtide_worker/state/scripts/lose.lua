-- Ends a batch whose requests are gone before any job was made of them: all of them have failed, or were cancelled.
-- KEYS: 1 batch hash, 2 clock, 3 idempotency key
-- ARGV: 1 batch member, 2 token, 3 batch id, 4 error as JSON, 5 stage of the finished batch,
--       6 seconds a finished batch is kept
-- Returns 1, or 0 if somebody else holds the batch now.
local found = redis.call('HMGET', KEYS[1], 'token', 'total', 'cancel')
if found[1] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local ended = found[3] == '1' and 'cancelled' or 'failed'
redis.call('HSET', KEYS[1], 'state', ended, ended, found[2], 'error', ARGV[4], 'finished', string.format('%.6f', now),
  'stage', ARGV[5], 'busy', '0', 'failures', '0', 'problem', '')
redis.call('ZADD', KEYS[2], string.format('%.6f', now + ARGV[6]), ARGV[1])
-- It never ran: whoever submits it again is to get another.
local held = redis.call('GET', KEYS[3])
if held and string.sub(held, 1, #ARGV[3] + 1) == ARGV[3] .. ' ' then redis.call('DEL', KEYS[3]) end
return 1
