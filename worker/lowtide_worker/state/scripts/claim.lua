-- Takes what is due on one clock, pushes it forward by a lease and gives each a new dispatch token.
-- KEYS: clock, queue (the broker's list), ticker
-- ARGV: most (to take), lease (in seconds), hash_prefix, window (most messages in the queue), guard_ms (to hold the
--       ticker; "0": it is not asked), stages... (known here)
-- Returns a flat list: member, stage, token, ... The token is -1 of a member that cannot be worked on here: its stage
-- is a newer version's, its token is none that HINCRBY wrote, or its hash is no hash of ours. It is tried again
-- after a lease, and holds up no other.
if guard_ms ~= '0' and not redis.call('SET', ticker, '1', 'NX', 'PX', guard_ms) then return {} end
local room = math.min(tonumber(most), window - redis.call('LLEN', queue))
if room <= 0 then return {} end
local time = now()
local leased = score(time + lease)
local due = redis.call('ZRANGE', clock, '-inf', score(time), 'BYSCORE', 'LIMIT', 0, room)
local known = {}
for _, stage in ipairs(stages) do known[stage] = true end
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
  local hash = hash_prefix .. member
  local found = redis.pcall('HMGET', hash, 'stage', 'token', 'sent')
  local stage = found[1]
  if found.err then
    redis.call('ZADD', clock, leased, member)
    claim(member, found.err, -1)
  elseif not stage or stage == '' then
    redis.call('ZREM', clock, member)
  else
    redis.call('ZADD', clock, leased, member)
    -- A token that was sent and never used is sent again as it is: its first message may only be waiting its turn,
    -- and in a long queue would else be stale whenever a worker reaches it.
    local token = number(found[2])
    if not known[stage] or not token then
      claim(member, stage, -1)
    else
      redis.call('HSET', hash, 'busy', '1')
      if found[3] ~= found[2] then
        token = redis.call('HINCRBY', hash, 'token', 1)
        redis.call('HSET', hash, 'sent', token)
      end
      claim(member, stage, token)
    end
  end
end
return claimed
