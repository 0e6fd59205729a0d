-- Takes a job out of the live and the waiting ones and wakes those whose turn has come.
-- KEYS: 1 live jobs, 2 waiting jobs, 3 lowered limit, 4 clock
-- ARGV: 1 job id, 2 most live jobs, 3 prefix of a job's hash, 4 prefix of a job's member,
--       5 what the limit does: "lower", "raise" or "", 6 milliseconds a lowered limit lasts
-- Returns how many were woken.
if ARGV[5] == 'lower' then
  local live = redis.call('ZCARD', KEYS[1])
  redis.call('SET', KEYS[3], math.max(1, live - 1), 'PX', ARGV[6])
elseif ARGV[5] == 'raise' then
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('INCR', KEYS[3]) end
end
if ARGV[5] ~= 'raise' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
local limit = math.min(tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[3]) or ARGV[2]))
local free = limit - redis.call('ZCARD', KEYS[1])
if free <= 0 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
local woken = redis.call('ZRANGE', KEYS[2], 0, free - 1)
for _, job in ipairs(woken) do
  local busy = redis.call('HGET', ARGV[3] .. job, 'busy')
  if busy == '0' then
    redis.call('ZADD', KEYS[4], 'XX', now, ARGV[4] .. job)
  elseif busy then
    -- A worker holds it right now, and may have asked too early.
    redis.call('HSET', ARGV[3] .. job, 'woken', '1')
  else
    -- Its batch is deleted; it must not stand before the others.
    redis.call('ZREM', KEYS[2], job)
  end
end
return #woken
