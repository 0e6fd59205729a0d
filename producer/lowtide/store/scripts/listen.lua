-- Notes that a worker listens for a handler on a queue. Deliveries that found no worker come at once where none
-- listened on that queue; and so do those that were sent to a queue on which no worker listens any more.
-- KEYS: listeners (of the handler), handlers, queued (deliveries that wait), in_hand (deliveries that it has), clock
-- ARGV: handler, queue, worker, fresh (seconds after which a silent worker counts for nothing), worker_kept (seconds a
--       silent worker is remembered), handler_kept (seconds a handler is), hash_prefix, most (to wake)
-- Returns how many were woken.
local time = now()
local due = score(time)
redis.call('ZREMRANGEBYSCORE', listeners, '-inf', score(time - worker_kept))
local workers = redis.call('ZRANGE', listeners, 0, -1, 'REV', 'WITHSCORES')
local heard, deserted = {}, false
for index = 1, #workers, 2 do
  -- A queue may have blanks in its name; a worker has none.
  local other = string.match(workers[index], '^(.*) ') or ''
  if time - workers[index + 1] < tonumber(fresh) then heard[other] = true
  elseif not heard[other] and other ~= queue then deserted = true end
end
redis.call('ZADD', listeners, due, queue .. ' ' .. worker)
redis.call('EXPIRE', listeners, handler_kept)
redis.call('ZREMRANGEBYSCORE', handlers, '-inf', score(time - handler_kept))
redis.call('ZADD', handlers, due, handler)
local new = not heard[queue]
heard[queue] = true
local woken = {}
if new then
  local waiting = redis.call('ZPOPMIN', queued, most)
  for index = 1, #waiting, 2 do woken[#woken + 1] = waiting[index] end
end
if new or deserted then
  for _, member in ipairs(redis.call('ZRANGE', in_hand, 0, most - 1)) do
    local sent_to = redis.call('HGET', hash_prefix .. member, 'sent_to')
    if sent_to and not heard[sent_to] then woken[#woken + 1] = member end
  end
end
for _, member in ipairs(woken) do wake(hash_prefix .. member, member, clock, due) end
return #woken
