-- Notes that a worker listens for a handler on a queue. Where nobody listened there, what waited comes at once:
-- deliveries that found nobody, and those that were sent to a queue where nobody listens any more.
-- KEYS: 1 listeners of the handler, 2 handlers, 3 deliveries that wait, 4 deliveries in hand, 5 clock
-- ARGV: 1 handler, 2 queue, 3 worker, 4 seconds after which a silent worker counts for nothing,
--       5 seconds a silent worker is remembered, 6 seconds a handler is, 7 prefix of a delivery's hash, 8 most to wake
-- Returns how many were woken.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local due = string.format('%.6f', now)
local heard = {}
for _, one in ipairs(redis.call('ZRANGE', KEYS[1], string.format('%.6f', now - ARGV[4]), '+inf', 'BYSCORE')) do
  heard[string.match(one, '^%S+')] = true
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now - ARGV[5]))
redis.call('ZADD', KEYS[1], due, ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', now - ARGV[6]))
redis.call('ZADD', KEYS[2], due, ARGV[1])
if heard[ARGV[2]] then return 0 end
heard[ARGV[2]] = true
local waiting = redis.call('ZPOPMIN', KEYS[3], ARGV[8])
local woken = {}
for index = 1, #waiting, 2 do woken[#woken + 1] = waiting[index] end
for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, ARGV[8] - 1)) do
  local queue = redis.call('HGET', ARGV[7] .. member, 'sent_to')
  if queue and not heard[queue] then woken[#woken + 1] = member end
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
