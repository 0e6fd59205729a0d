-- Frees a delivery's place in its handler's hands, and makes the delivery due that has waited longest for one.
-- KEYS: 1 batch hash, 2 clock
-- ARGV: 1 segment member, 2 prefix of the deliveries in hand, 3 prefix of those that wait, 4 prefix of a hash
local handler = redis.call('HGET', KEYS[1], 'on_result')
if not handler then return 0 end
if redis.call('ZREM', ARGV[2] .. handler, ARGV[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
while true do
  local next = redis.call('ZPOPMIN', ARGV[3] .. handler)
  if not next[1] then return 0 end
  if redis.call('HGET', ARGV[4] .. next[1], 'busy') == '1' then
    -- A worker holds it right now, and may have asked too early.
    redis.call('HSET', ARGV[4] .. next[1], 'woken', '1')
    return 1
  end
  if redis.call('ZADD', KEYS[2], 'XX', 'CH', now, next[1]) == 1 then return 1 end
end
