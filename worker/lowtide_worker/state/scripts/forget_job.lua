-- Removes a job of a deleted batch with all its segments: those on the clock, parked ones, those in a handler's hands.
-- KEYS: 1 batch hash, 2 job hash, 3 bitmap of the job, 4 clock of jobs, 5 clock of segments, 6 parked segments,
--       7 deliveries in the handler's hands, 8 deliveries that wait
-- ARGV: 1 token, 2 job member, 3 prefix of a segment's member, 4 prefix of a hash
-- Returns 1, or 0 if somebody else holds the batch now.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local freed = 0
for number = 0, tonumber(redis.call('HGET', KEYS[2], 'segments') or 0) - 1 do
  local member = ARGV[3] .. number
  redis.call('DEL', ARGV[4] .. member)
  redis.call('ZREM', KEYS[5], member)
  redis.call('ZREM', KEYS[6], member)
  redis.call('ZREM', KEYS[8], member)
  freed = freed + redis.call('ZREM', KEYS[7], member)
end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[2])
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
while freed > 0 do
  local next = redis.call('ZPOPMIN', KEYS[8])
  if not next[1] then return 1 end
  if redis.call('HGET', ARGV[4] .. next[1], 'busy') == '1' then
    -- A worker holds it right now, and may have asked too early.
    redis.call('HSET', ARGV[4] .. next[1], 'woken', '1')
    freed = freed - 1
  else
    freed = freed - redis.call('ZADD', KEYS[5], 'XX', 'CH', now, next[1])
  end
end
return 1
