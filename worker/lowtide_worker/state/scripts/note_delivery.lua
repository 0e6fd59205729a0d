-- Notes at its batch what hinders the delivery of a segment, or that nothing does any more.
-- KEYS: segment, batch
-- ARGV: member (of the segment), token, problem ("" for none), attempt (that failed), most (attempts), pause (seconds
--       until the next one)
-- Returns 1, or 0 where nothing changed: another worker holds the segment now, or its batch is gone.
if held_by_other(segment, token) or not exists(batch) then return 0 end
if problem == '' then return forget_failed_delivery(batch, member) end
redis.call('HSET', batch, 'delivery_problem', problem,
  'delivery_failed', failed_delivery(member, attempt, most, now() + pause))
return 1
