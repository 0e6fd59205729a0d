-- Ends a batch whose requests are gone before any job was made of them: all of them have failed, or were cancelled.
-- KEYS: batch, clock, idempotency, destination, census, counters
-- ARGV: member (of the batch), batch_prefix (of a batch's hash), token, error (as JSON), stage (of the finished batch), retention (seconds a finished
--       batch is kept), counter (of results), reason (that they are counted under)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local id, total, cancel, state, bundle = unpack(redis.call('HMGET', batch, 'id', 'total', 'cancel', 'state', 'bundle'))
-- A bundled batch that is being cancelled has a job that writes its results.
if bundle and bundle ~= '' and not runs(state) then return 1 end
if bundle and bundle ~= '' then redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_running', -1) end
local time = now()
local ended = cancel == '1' and 'cancelled' or 'failed'
redis.call('HSET', batch, 'state', ended, ended, total, 'error', error, 'finished', score(time),
  'stage', stage, 'busy', '0', 'failures', '0', 'problem', '')
recount(batch, census, ended)
add(counters, counter .. '|' .. ended .. '|' .. reason, total)
redis.call('ZADD', clock, score(time + retention), member)
-- It never ran: a second submit under the same key gets a new batch, which may write to the same place.
local held = redis.call('GET', idempotency)
if held and string.sub(held, 1, #id + 1) == id .. ' ' then redis.call('DEL', idempotency) end
if redis.call('GET', destination) == id then redis.call('DEL', destination) end
return 1
