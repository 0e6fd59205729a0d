-- Has a delivery wait until a worker listens for its handler; its place in the handler's hands is free again.
-- KEYS: segment, listeners (of the handler), in_hand (deliveries that it has), queued (deliveries that wait), batch
-- ARGV: member (of the segment), token, fresh (seconds after which a silent worker counts for nothing), problem (of the
--       batch), kept (seconds until the set of those that wait is forgotten)
-- Returns 1, 0 if a worker listens meanwhile, -1 if another worker holds the segment now.
if held_by_other(segment, token) then return -1 end
redis.call('ZREM', in_hand, member)
local time = now()
local last = redis.call('ZRANGE', listeners, 0, 0, 'REV', 'WITHSCORES')
if last[2] and time - last[2] < tonumber(fresh) then return 0 end
redis.call('ZADD', queued, 'NX', score(time), member)
-- Each delivery tries again by itself too; the set need not outlive batches that were deleted meanwhile.
redis.call('EXPIRE', queued, kept)
if exists(batch) then
  redis.call('HSET', batch, 'delivery_problem', problem)
  redis.call('HDEL', batch, 'delivery_failed')
end
return 1
