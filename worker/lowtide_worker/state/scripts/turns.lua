-- Functions of the scripts that decide which jobs may be created. A job needs a slot of its provider; where its model
-- has a limit of enqueued tokens, it needs tokens too. They use names that these scripts declare: live (sorted set of
-- jobs), limit (lowered number of slots), most (slots), models (sorted set), served (sorted set: see `merged`), job_hash,
-- tokens_prefix (of a model's live tokens), quota_prefix, and those of shares.lua.

-- What is known of a model's quota: `configured` and `learned` limits, the time at which the latter was `lowered`, the
-- most tokens that the provider has `taken` since there is a limit, and sums of `estimated` and `reported` tokens.
-- What is no amount is left out: it must not stop the jobs of all batches.
local function read_quota(key)
  local readable, found = pcall(cjson.decode, redis.call('GET', key) or '{}')
  local quota = {}
  if not readable or type(found) ~= 'table' then return quota end
  for _, name in ipairs({'configured', 'learned', 'lowered', 'taken', 'estimated', 'reported'}) do
    quota[name] = amount(found[name])
  end
  return quota
end

-- A quota that nothing changes is forgotten after a week: the project may have moved to another tier.
local function write_quota(key, quota) redis.call('SET', key, cjson.encode(quota), 'EX', 604800) end

-- The most tokens of all live jobs of a model; nil where no limit is known.
local function limit_of(quota)
  if quota.configured and quota.learned then return math.min(quota.configured, quota.learned) end
  return quota.configured or quota.learned
end

-- Reported tokens for each estimated one, from 1/4 to 4. It needs some ten thousand tokens to move away from 1.
local function ratio_of(quota)
  local ratio = ((quota.reported or 0) + 1e4) / ((quota.estimated or 0) + 1e4)
  return math.max(0.25, math.min(4, ratio))
end

-- Adds the tokens of a closed job to what corrects the estimates. Only the last ten millions or so count.
local function correct(key, estimated, reported)
  local quota = read_quota(key)
  local all = (quota.estimated or 0) + estimated
  local kept = math.min(1, 1e7 / all)
  quota.estimated, quota.reported = all * kept, ((quota.reported or 0) + reported) * kept
  write_quota(key, quota)
end

-- The tokens of a model's live jobs, and their number.
local function live_tokens(model)
  local sum, jobs = 0, 0
  local found = redis.call('HGETALL', tokens_prefix .. model)
  for index = 1, #found, 2 do
    if redis.call('ZSCORE', live, found[index]) then
      sum, jobs = sum + (amount(found[index + 1]) or 0), jobs + 1
    else
      redis.call('HDEL', tokens_prefix .. model, found[index])
    end
  end
  return sum, jobs
end

-- The lowered number of slots; nil where it is not lowered, or not a number of slots.
local function lowered_slots()
  local slots = amount(redis.call('GET', limit))
  return slots and slots >= 1 and math.floor(slots) or nil
end

local function free_slots()
  return math.min(tonumber(most), lowered_slots() or tonumber(most)) - redis.call('ZCARD', live)
end

-- The tokens that a job gets of what is left: all that it needs, or all that is left, if that is a quarter of the limit;
-- nil where it must wait. A job that is alone gets at least its least part, even above the limit.
local function share_of(need, least, limit, used, jobs)
  local left = limit - used
  if need <= left then return need end
  if least <= left and left >= limit / 4 then return left end
  return jobs == 0 and least or nil
end

-- The part of all slots, or of all tokens of a model, that a job gets, whichever is more: what its tenant's share grows by.
local function cost_of(given, limit)
  local part = math.max(1 / most, limit and given / limit or 0)
  return math.ceil(CAPACITY * math.min(1, part))
end

-- The first jobs of a model's line that may be created now, at most `count`; whether the next one lacks tokens; and
-- whether others may have come up for jobs that were taken out of the line.
local function read_line(model, count)
  local found, next_job, got, drop, has_changed = {}, in_turn(model, count)
  local id, strand = next_job()
  if not id then return found, false, has_changed() end
  local quota = read_quota(quota_prefix .. model)
  local limit, ratio = limit_of(quota), ratio_of(quota)
  local used, jobs = 0, 0
  if limit then used, jobs = live_tokens(model) end
  while id and #found < count do
    -- A key of another type is no job of ours.
    local stage, tokens, least = unpack(redis.pcall('HMGET', job_hash .. id, 'stage', 'tokens', 'least'))
    local turn = redis.call('ZSCORE', waiting_prefix .. model, id)
    if stage and not turn and stays(model, id, strand) then turn = redis.call('ZSCORE', waiting_prefix .. model, id) end
    if stage and turn then
      tokens, least = amount(tokens) or 1, amount(least) or 1
      local need = math.ceil(tokens * ratio)
      local given = limit and share_of(need, math.ceil(least * ratio), limit, used, jobs) or (not limit and need)
      if not given then return found, true end
      used, jobs = used + given, jobs + 1
      local part = given < need and math.max(least, math.floor(given / ratio)) or tokens
      local cost = cost_of(given, limit)
      local priority, tenant = parts_of(strand)
      found[#found + 1] = {
        id = id, turn = tonumber(turn), model = model, priority = priority, tenant = tenant, given = given, part = part,
        cost = cost,
      }
      got(cost)
    else
      -- Its batch is deleted, or a worker of an earlier version has taken it; it must not stand before the others.
      drop(id)
    end
    id, strand = next_job()
  end
  return found, false, #found < count and has_changed()
end

-- The first jobs of a model's line that may be created now, at most `count`; and whether the next one lacks tokens.
local function first_of(model, count)
  local found, lacks, again
  -- Each time, less of the line is left to be read. The bound is for what is not thought of: Redis does nothing else
  -- while a script runs.
  for _ = 1, 100 do
    match_strands(model)
    found, lacks, again = read_line(model, count)
    if not again then break end
  end
  return found, lacks
end

-- The names under which `served` has the time at which a tenant, and a line, got a slot that others could have had.
local function names_of(job) return 'tenant:' .. job.tenant, 'model:' .. job.model end

-- The first jobs of several lines, which share the slots: by priority, then by the time since their tenant got a slot, then
-- by age. Each line keeps its own order. So where several tenants wait in a line, the time since the line got a slot
-- counts: no tenant waits there until another one has no older job in any line.
local function merged(lines, count)
  local found, places, several, since, last = {}, {}, {}, {}, now()
  local function served_at(job)
    local of_tenant, of_line = names_of(job)
    local place = job.model .. ' ' .. job.priority
    if several[place] == nil then several[place] = tenants_that_wait(job.model, job.priority) > 1 end
    local name = several[place] and of_line or of_tenant
    since[name] = since[name] or tonumber(redis.call('ZSCORE', served, name) or 0)
    return since[name]
  end
  local function is_before(one, other)
    if one.priority ~= other.priority then return one.priority > other.priority end
    local before, after = served_at(one), served_at(other)
    if before ~= after then return before < after end
    if one.turn ~= other.turn then return one.turn < other.turn end
    return one.id < other.id
  end
  while #found < count do
    local best, chosen
    for index, line in ipairs(lines) do
      local job = line[places[index] or 1]
      if job and (not best or is_before(job, best)) then best, chosen = job, index end
    end
    if not best then break end
    found[#found + 1], places[chosen], last = best, (places[chosen] or 1) + 1, last + 1
    for _, name in ipairs({names_of(best)}) do since[name] = last end
  end
  return found
end

-- The jobs that may be created now, in the order of their turn: `given` are the tokens that each gets, `part` as many by
-- the estimate. No job stands before jobs of other models while it lacks tokens. Also returns which models lack tokens,
-- and whether jobs of several models could have the slots.
local function next_jobs()
  local lines, short, waits = {}, {}, false
  local free = free_slots()
  if free <= 0 then return {}, short, false end
  for _, model in ipairs(redis.call('ZRANGE', models, 0, -1)) do
    local first, lacks = first_of(model, free)
    if #first > 0 then lines[#lines + 1] = first end
    short[model], waits = lacks, waits or lacks
  end
  if #lines == 0 and not waits then redis.call('DEL', served) end
  if #lines > 1 then return merged(lines, free), short, true end
  return lines[1] or {}, short, false
end

-- Takes a job out of the live and the waiting ones.
local function leave(job, model, id)
  redis.call('ZREM', live, id)
  redis.call('HDEL', tokens_prefix .. model, id)
  leave_line(model, id)
  redis.call('HDEL', job, 'awaits', 'granted', 'granted_cost')
end

-- Makes those due whose turn has come. A job at work asks again only if it still waits for a slot when its work ends: see
-- advance.lua. Returns how many.
local function wake_next(clock, job_member)
  -- Where the set of models was deleted, no line would be read until one of its jobs asks.
  if exists(waiting_prefix .. model) then redis.call('ZADD', models, 'NX', score(now()), model) end
  local found, due = next_jobs(), score(now())
  for _, job in ipairs(found) do
    local hash = job_hash .. job.id
    if redis.call('HGET', hash, 'busy') == '1' then
      redis.call('HSETNX', hash, 'woken', TURN)
    else
      wake(hash, job_member .. job.id, clock, due)
    end
  end
  return #found
end
