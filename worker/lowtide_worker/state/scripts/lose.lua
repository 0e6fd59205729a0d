-- Ends a batch whose requests are gone: those without a result have failed, or were cancelled. A batch of a bundle may
-- have results; of another one no job was made.
-- KEYS: batch, clock, idempotency, destination, census, counters, singles (its list, while it gathers),
--       waiting_files (set of files that singles refer to)
-- ARGV: member (of the batch), batch_prefix (of a batch's hash), token, error (as JSON), stage (of the finished batch), retention (seconds a finished
--       batch is kept), counter (of results), reason (that they are counted under), waiting_name (of
--       singles in the census)
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local id, cancel, state, bundle, kept =
  unpack(redis.call('HMGET', batch, 'id', 'cancel', 'state', 'bundle', 'kept'))
-- A bundled batch that is being cancelled has a job that writes its results.
if bundle and bundle ~= '' and not runs(state) then return 1 end
if bundle and bundle ~= '' then redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_running', -1) end
local time = now()
local ended = cancel == '1' and 'cancelled' or 'failed'
local found = counts_of(batch)
local left = found[1] - found[2] - found[3] - found[4] - found[5]
redis.call('HINCRBY', batch, ended, left)
redis.call('HSET', batch, 'state', ended, 'error', error, 'finished', score(time),
  'stage', stage, 'busy', '0', 'failures', '0', 'problem', '')
recount(batch, census, ended)
add(counters, counter .. '|' .. ended .. '|' .. reason, left)
redis.call('ZADD', clock, score(time + (kept and kept ~= '' and kept or retention)), member)
-- Its singles wait no more, and the sweep may remove the files of those that have one: the fifth of their parts.
local waiting = redis.call('LLEN', singles)
add(census, waiting_name, -waiting)
for first = 0, waiting - 1, 500 do
  for _, single in ipairs(redis.call('LRANGE', singles, first, first + 499)) do
    local file = string.match(single, '^%["",%d+,null,null,"(%w+)"%]$')
    if file then redis.call('SREM', waiting_files, file) end
  end
end
redis.call('DEL', singles)
put_event(batch, 'finished', redis.call('HGET', batch, 'on_finished'), census, clock, time)
-- It never ran: a second submit under the same key gets a new batch, which may write to the same place.
local held = redis.call('GET', idempotency)
if held and string.sub(held, 1, #id + 1) == id .. ' ' then redis.call('DEL', idempotency) end
if redis.call('GET', destination) == id then redis.call('DEL', destination) end
return 1
