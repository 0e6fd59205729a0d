-- Takes what is due on one clock, pushes it forward by a lease and gives each a new dispatch token.
-- KEYS: 1 clock, 2 broker's queue (a list), 3 ticker guard
-- ARGV: 1 most to take, 2 lease in seconds, 3 prefix of hashes, 4 most messages in the queue,
--       5 milliseconds to hold the guard (0: no guard), 6.. stages known here
-- Returns a flat list: member, stage, token, ... The token is -1 of a member that cannot be worked on here: its stage
-- is a newer version's, its token is none that HINCRBY wrote, or its hash is no hash of ours. It is looked at again
-- after a lease, and holds up no other.
if ARGV[5] ~= '0' and not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[5]) then return {} end
local room = math.min(tonumber(ARGV[1]), ARGV[4] - redis.call('LLEN', KEYS[2]))
if room <= 0 then return {} end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local lease = string.format('%.6f', now + ARGV[2])
local due = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, room)
local known = {}
for index = 6, #ARGV do known[ARGV[index]] = true end
local claimed = {}
-- A token as HINCRBY writes it, and so far from the end of the numbers that it can count on; else nil.
local function number(token)
  if not token or #token > 15 then return nil end
  return tonumber(string.match(token, '^0$') or string.match(token, '^[1-9]%d*$') or '')
end
local function claim(member, stage, token)
  claimed[#claimed + 1] = member
  claimed[#claimed + 1] = stage
  claimed[#claimed + 1] = token
end
for _, member in ipairs(due) do
  local key = ARGV[3] .. member
  local found = redis.pcall('HMGET', key, 'stage', 'token', 'sent')
  local stage = found[1]
  if found.err then
    redis.call('ZADD', KEYS[1], lease, member)
    claim(member, found.err, -1)
  elseif not stage or stage == '' then
    redis.call('ZREM', KEYS[1], member)
  else
    redis.call('ZADD', KEYS[1], lease, member)
    -- A token that was sent and never used is sent again as it is: its first message may only be waiting its turn,
    -- and in a long queue would else be stale whenever a worker comes to it.
    local token = number(found[2])
    if not known[stage] or not token then
      claim(member, stage, -1)
    else
      redis.call('HSET', key, 'busy', '1')
      if found[3] ~= found[2] then
        token = redis.call('HINCRBY', key, 'token', 1)
        redis.call('HSET', key, 'sent', token)
      end
      claim(member, stage, token)
    end
  end
end
return claimed
