-- Frees a delivery's place in its handler's hands, and makes the delivery due that has waited longest for one.
-- KEYS: batch, clock
-- ARGV: member (of the segment), in_hand_prefix (of the deliveries in a handler's hands), queued_prefix (of those that
--       wait), hash_prefix
local handler = redis.call('HGET', batch, 'on_result')
if not handler then return 0 end
if redis.call('ZREM', in_hand_prefix .. handler, member) == 0 then return 0 end
local due = score(now())
while true do
  local next = redis.call('ZPOPMIN', queued_prefix .. handler)
  if not next[1] then return 0 end
  if wake(hash_prefix .. next[1], next[1], clock, due) then return 1 end
end
