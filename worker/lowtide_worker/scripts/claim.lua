-- Takes what is due on one clock, pushes it forward by a lease and gives each a new dispatch token.
-- KEYS: 1 clock, 2 broker's queue (a list), 3 ticker guard
-- ARGV: 1 most to take, 2 lease in seconds, 3 prefix of hashes, 4 most messages in the queue,
--       5 milliseconds to hold the guard (0: no guard)
-- Returns a flat list: member, stage, token, ...
if ARGV[5] ~= '0' and not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[5]) then return {} end
local room = math.min(tonumber(ARGV[1]), ARGV[4] - redis.call('LLEN', KEYS[2]))
if room <= 0 then return {} end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local lease = string.format('%.6f', now + ARGV[2])
local due = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, room)
local claimed = {}
for _, member in ipairs(due) do
  local key = ARGV[3] .. member
  local found = redis.call('HMGET', key, 'stage', 'token', 'sent')
  local stage = found[1]
  if stage and stage ~= '' then
    redis.call('ZADD', KEYS[1], lease, member)
    redis.call('HSET', key, 'busy', '1')
    claimed[#claimed + 1] = member
    claimed[#claimed + 1] = stage
    -- A token that was sent and never used is sent again as it is: its first message may only be waiting its turn,
    -- and in a long queue would else be stale whenever a worker comes to it.
    local token = found[2]
    if found[3] ~= token then
      token = redis.call('HINCRBY', key, 'token', 1)
      redis.call('HSET', key, 'sent', token)
    end
    claimed[#claimed + 1] = tonumber(token)
  else
    redis.call('ZREM', KEYS[1], member)
  end
end
return claimed
