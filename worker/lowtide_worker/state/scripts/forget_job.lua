-- Removes a job of a deleted batch with all its segments: those on the clock, parked ones, those in a handler's hands.
-- KEYS: batch, job, carried (bitmap), result_index, clock, segments_clock, parked, in_hand (deliveries that the handler has),
--       queued (deliveries that wait), census, counted_rows (bitmap), known_strangers (set)
-- ARGV: token, job_member, segment_member (prefix), hash_prefix
-- Returns 1, or 0 if another worker holds the batch now.
if held_by_other(batch, token) then return 0 end
local freed = 0
for number = 0, steps(redis.call('HGET', job, 'segments')) - 1 do
  local member = segment_member .. number
  remove(hash_prefix .. member, census)
  redis.call('ZREM', segments_clock, member)
  redis.call('ZREM', parked, member)
  redis.call('ZREM', queued, member)
  freed = freed + redis.call('ZREM', in_hand, member)
end
remove(job, census)
redis.call('DEL', carried, result_index, counted_rows, known_strangers)
redis.call('ZREM', clock, job_member)
local due = score(now())
while freed > 0 do
  local next = redis.call('ZPOPMIN', queued)
  if not next[1] then return 1 end
  if wake(hash_prefix .. next[1], next[1], segments_clock, due) then freed = freed - 1 end
end
return 1
