-- Puts segments of a job on the clock; with the last of them the job is left to wait until all are stored.
-- KEYS: 1 job hash, 2 clock of the job, 3 clock of the segments, 4 clock the job waits on
-- ARGV: 1 job member, 2 token, 3 stage the job waits in, 4 seconds until that is looked at all the same,
--       5 schema version, 6 batch id, 7 job id, 8 stage of a segment, 9 origin, 10 prefix of a segment's
--       hash, 11 prefix of its member, 12 piece of the output, 13 bytes of output cut so far, or "" with the last
--       segments, 14.. start, end of each (bytes of the piece)
-- Returns 1, or 0 if somebody else holds the job now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local number = tonumber(redis.call('HGET', KEYS[1], 'segments') or 0)
for index = 14, #ARGV, 2 do
  redis.call('HSET', ARGV[10] .. number, 'v', ARGV[5], 'batch_id', ARGV[6], 'job_id', ARGV[7],
    'number', number, 'stage', ARGV[8], 'token', 0, 'busy', 0, 'origin', ARGV[9], 'piece', ARGV[12],
    'start', ARGV[index], 'end', ARGV[index + 1])
  redis.call('ZADD', KEYS[3], string.format('%.6f', now), ARGV[11] .. number)
  number = number + 1
end
local left = redis.call('HINCRBY', KEYS[1], 'segments_left', (#ARGV - 13) / 2)
redis.call('HSET', KEYS[1], 'segments', number, 'collected', ARGV[13])
if ARGV[13] ~= '' then return 1 end
redis.call('HSET', KEYS[1], 'stage', ARGV[3], 'busy', '0')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[4], string.format('%.6f', left == 0 and now or now + ARGV[4]), ARGV[1])
return 1
