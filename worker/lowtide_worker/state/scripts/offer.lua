-- Gives a delivery one of the places in its handler's hands, if one is free.
-- KEYS: segment, in_hand (deliveries that the handler has, by when they count as lost), queued (deliveries that wait),
--       batch
-- ARGV: member (of the segment), token, most (in hand), patience (seconds until it counts as lost)
-- Returns 1, 0 if it must wait, -1 if another worker holds the segment now or its batch is deleted.
if held_by_other(segment, token) or not exists(batch) then return -1 end
local time = now()
-- What is lost comes again by the clock; its place must not be lost with it.
redis.call('ZREMRANGEBYSCORE', in_hand, '-inf', time)
if not redis.call('ZSCORE', in_hand, member) and redis.call('ZCARD', in_hand) >= tonumber(most) then
  redis.call('ZADD', queued, 'NX', score(time), member)
  return 0
end
redis.call('ZADD', in_hand, score(time + patience), member)
redis.call('ZREM', queued, member)
return 1
