-- Puts segments of a job on the clock; with the last of them the job is left to wait until all are stored.
-- KEYS: job, clock, segments_clock, next_clock (that the job waits on), census
-- ARGV: member (of the job), token, stage (that the job waits in), watch (seconds until it is due in any case),
--       version (of the schema), batch_id, job_id, segment_stage, origin, segment_hash, segment_member (prefixes),
--       piece (of the output), collected (JSON: the output cut so far; "" with the last segments),
--       spans... (start and end of each, in bytes of the piece)
-- Returns 1, or 0 if another worker holds the job now.
if held_by_other(job, token) then return 0 end
local time = now()
local number = tonumber(redis.call('HGET', job, 'segments') or 0)
for index = 1, #spans, 2 do
  redis.call('HSET', segment_hash .. number, 'v', version, 'batch_id', batch_id, 'job_id', job_id,
    'number', number, 'stage', segment_stage, 'token', 0, 'busy', 0, 'origin', origin, 'piece', piece,
    'start', spans[index], 'end', spans[index + 1])
  count_in(segment_hash .. number, census, 'segments|waiting')
  redis.call('ZADD', segments_clock, score(time), segment_member .. number)
  number = number + 1
end
local left = redis.call('HINCRBY', job, 'segments_left', #spans / 2)
redis.call('HSET', job, 'segments', number, 'collected', collected)
if collected ~= '' then return 1 end
redis.call('HSET', job, 'stage', stage, 'busy', '0')
redis.call('ZREM', clock, member)
redis.call('ZADD', next_clock, score(left == 0 and time or time + watch), member)
return 1
