-- Takes what is due on one clock, pushes it forward by a lease and gives each a new dispatch token. Members of the lower
-- turn are taken where hardly any message waits in any queue, so that thousands of them delay no other work.
-- KEYS: clock, queue (the broker's list), ticked (time of the last tick), other_queues... (lists too)
-- ARGV: most (to take), lease (in seconds), hash_prefix, window (most messages in the queue), pause (seconds between two
--       ticks; "0" where this is none), lower (most of the lower turn, where no message waits), least_lower (the number of
--       them in any case), stages... (known here)
-- Returns a flat list: member, stage, token, ... The token is -1 of a member that cannot be worked on here: its stage
-- is a newer version's, its token is none that HINCRBY wrote, or its hash is no hash of ours. It is due again
-- after a lease, and delays no other.
local time = now()
if tonumber(pause) > 0 then
  local last = finite(redis.call('GET', ticked)) or 0
  if math.abs(time - last) < tonumber(pause) then return {} end
  redis.call('SET', ticked, score(time))
  -- Redis's clock was set back by more than its corrections, or a server with another clock has taken over. What is due
  -- later is due sooner by as much: to be early costs a look, to be late may take days.
  if last - time > 5 then
    local later = redis.call('ZRANGE', clock, '(' .. score(time), '(' .. LOWER_TURN, 'BYSCORE', 'WITHSCORES')
    for index = 1, #later, 2 do
      redis.call('ZADD', clock, score(math.max(time, later[index + 1] - (last - time))), later[index])
    end
  end
end
local waiting = redis.call('LLEN', queue)
local room = math.min(tonumber(most), window - waiting)
-- In a queue that is kept full by other work there is room for some of the lower turn all the same.
local left = waiting < window + lower and tonumber(least_lower) or 0
local leased = score(time + lease)
local due = room > 0 and redis.call('ZRANGE', clock, '-inf', score(time), 'BYSCORE', 'LIMIT', 0, room) or {}
waiting = waiting + #due
for _, other in ipairs(other_queues) do waiting = waiting + redis.call('LLEN', other) end
left = math.max(left, lower - waiting)
if left > 0 then
  for _, member in ipairs(redis.call('ZRANGE', clock, LOWER_TURN, '+inf', 'BYSCORE', 'LIMIT', 0, left)) do
    due[#due + 1] = member
  end
end
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
    -- A token that was sent and never used is sent again as it is: its first message may only be waiting its turn.
    -- With a new token, a message in a long queue would be stale each time that a worker reads it.
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
