-- Notes that a worker listens for a handler on a queue. Deliveries that found nobody come at once, where nobody
-- listened on that queue; and so do those that were sent to a queue where nobody listens any more.
-- KEYS: 1 listeners of the handler, 2 handlers, 3 deliveries that wait, 4 deliveries in hand, 5 clock
-- ARGV: 1 handler, 2 queue, 3 worker, 4 seconds after which a silent worker counts for nothing,
--       5 seconds a silent worker is remembered, 6 seconds a handler is, 7 prefix of a delivery's hash, 8 most to wake
-- Returns how many were woken.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local due = string.format('%.6f', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now - ARGV[5]))
local workers = redis.call('ZRANGE', KEYS[1], 0, -1, 'REV', 'WITHSCORES')
local heard, deserted = {}, false
for index = 1, #workers, 2 do
  -- A queue may have blanks in its name; a worker has none.
  local queue = string.match(workers[index], '^(.*) ') or ''
  if now - workers[index + 1] < tonumber(ARGV[4]) then heard[queue] = true
  elseif not heard[queue] and queue ~= ARGV[2] then deserted = true end
end
redis.call('ZADD', KEYS[1], due, ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', now - ARGV[6]))
redis.call('ZADD', KEYS[2], due, ARGV[1])
local new = not heard[ARGV[2]]
heard[ARGV[2]] = true
local woken = {}
if new then
  local waiting = redis.call('ZPOPMIN', KEYS[3], ARGV[8])
  for index = 1, #waiting, 2 do woken[#woken + 1] = waiting[index] end
end
if new or deserted then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, ARGV[8] - 1)) do
    local queue = redis.call('HGET', ARGV[7] .. member, 'sent_to')
    if queue and not heard[queue] then woken[#woken + 1] = member end
  end
end
for _, member in ipairs(woken) do
  if redis.call('HGET', ARGV[7] .. member, 'busy') == '1' then
    -- A worker holds it right now, and may have looked too early.
    redis.call('HSET', ARGV[7] .. member, 'woken', '1')
  else
    redis.call('ZADD', KEYS[5], 'XX', due, member)
  end
end
return #woken
