-- Counts a segment whose results are stored, once; with the job's last segment the job is due to be settled.
-- KEYS: segment, job, batch, clock (of the segment), job_clock, census, counters
-- ARGV: member (of the segment), token, job_member, retried (requests that run again because of their row),
--       handler_waits ("1" if one waits for the results), lease (in seconds), counts... (counter, amount pairs of the batch), totals... (the same of all batches)
-- Returns -1 if another worker holds the segment now or its batch is deleted, else the number of segments that the job
-- has left.
-- Of a batch that is deleted, a counter would bring back a part.
if held_by_other(segment, token) or not exists(batch) then return -1 end
for index = 1, #counts, 2 do redis.call('HINCRBY', batch, counts[index], counts[index + 1]) end
add_all(counters, totals)
if retried ~= '0' then redis.call('HINCRBY', job, 'retried', retried) end
if handler_waits == '1' then
  redis.call('HSET', segment, 'stored', '1')
  redis.call('HDEL', segment, 'granted', 'ordinals')
  redis.call('HINCRBY', batch, 'undelivered', 1)
  recount(segment, census, 'undelivered')
  redis.call('ZADD', clock, 'XX', score(now() + lease), member)
else
  remove(segment, census)
  redis.call('ZREM', clock, member)
end
local left = redis.call('HINCRBY', job, 'segments_left', -1)
-- While `collected` says that more segments will come, the job is still held by its collect.
if left == 0 and (redis.call('HGET', job, 'collected') or '') == '' then
  -- A new token: a worker that has just found segments left must not put the job back to sleep.
  redis.call('HINCRBY', job, 'token', 1)
  redis.call('ZADD', job_clock, 'XX', score(now()), job_member)
end
return left
