-- Takes a job out of the live and the waiting ones and wakes those whose turn has come.
-- KEYS: 1 job hash, 2 live jobs, 3 waiting jobs, 4 lowered limit, 5 clock
-- ARGV: 1 token, 2 job id, 3 most live jobs, 4 prefix of a job's hash, 5 prefix of a job's member,
--       6 what the limit does: "lower", "raise" or "", 7 milliseconds a lowered limit lasts
-- Returns how many were woken, -1 if somebody else holds the job now: it may have a slot for good reason.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
if ARGV[6] == 'lower' then
  local live = redis.call('ZCARD', KEYS[2])
  redis.call('SET', KEYS[4], math.max(1, live - 1), 'PX', ARGV[7])
elseif ARGV[6] == 'raise' then
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('INCR', KEYS[4]) end
end
if ARGV[6] ~= 'raise' then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
local limit = math.min(tonumber(ARGV[3]), tonumber(redis.call('GET', KEYS[4]) or ARGV[3]))
local free = limit - redis.call('ZCARD', KEYS[2])
if free <= 0 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
local woken = redis.call('ZRANGE', KEYS[3], 0, free - 1)
for _, job in ipairs(woken) do
  local busy = redis.call('HGET', ARGV[4] .. job, 'busy')
  if busy == '0' then
    redis.call('ZADD', KEYS[5], 'XX', now, ARGV[5] .. job)
  elseif busy then
    -- A worker holds it right now, and may have asked too early.
    redis.call('HSET', ARGV[4] .. job, 'woken', '1')
  else
    -- Its batch is deleted; it must not stand before the others.
    redis.call('ZREM', KEYS[3], job)
  end
end
return #woken
