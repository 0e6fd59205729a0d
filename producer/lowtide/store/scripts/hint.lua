-- Makes the poll of a job due, because an event of the provider says that the job has ended. That is all that an event
-- does: the poll asks the provider. However many events come, a job is made due at most once in `pause` seconds.
-- KEYS: events (ids of those that came, by time), live (jobs at the provider), clock, hooks, counters
-- ARGV: event (its id), kept (seconds for which it is remembered), most (remembered events), job_id (that it names; ""
--       for none), pause, create_stage, poll_stage, job_hash, job_member (prefixes), names... (that the provider may have
--       for the job)
-- Returns {`replayed`, `other` (it names no job), `unknown`, `over` (its end is known) or `due`, 1 if events come again
--         that were missed}.
local time = now()
redis.call('ZREMRANGEBYSCORE', events, '-inf', score(time - kept))
local function counted(outcome, resumed)
  add(counters, 'hints|' .. outcome, 1)
  return {outcome, resumed or 0}
end
if redis.call('ZADD', events, 'NX', score(time), event) == 0 then return counted('replayed') end
if redis.call('ZCARD', events) > tonumber(most) then redis.call('ZPOPMIN', events) end
if job_id == '' and #names == 0 then return counted('other') end

local wanted = {}
for _, name in ipairs(names) do wanted[name] = true end
-- Whether the provider has one of these names for a job. A key that another program has written stops no other job.
local function is_named(id)
  local name = redis.pcall('HGET', job_hash .. id, 'name')
  return type(name) == 'string' and wanted[string.match(name, '[^/]+$')] == true
end
local found = job_id ~= '' and exists(job_hash .. job_id) and job_id
if not found and #names > 0 then
  for _, id in ipairs(redis.call('ZRANGE', live, 0, -1)) do
    if is_named(id) then
      found = id
      break
    end
  end
end
if not found then return counted('unknown') end

local job, member = job_hash .. found, job_member .. found
local stage, busy, hinted, webhook = unpack(redis.call('HMGET', job, 'stage', 'busy', 'hinted', 'webhook'))
local resumed = 0
if webhook == '1' then
  local received, missed = redis.call('ZSCORE', hooks, 'received'), redis.call('ZSCORE', hooks, 'missed')
  if missed and tonumber(missed) >= tonumber(received or 0) then resumed = 1 end
  -- What was missed by a clock that was set back since is no later.
  redis.call('ZADD', hooks, score(math.max(time, tonumber(missed or 0) + 1e-3)), 'received')
end
-- An event may come before the answer to the create call is recorded, and even while that answer is lost.
if stage ~= poll_stage and stage ~= create_stage then return counted('over', resumed) end
hinted = finite(hinted) or 0
if hinted < time then
  local due = score(math.max(time, hinted + pause))
  redis.call('HSET', job, 'hinted', due)
  if busy == '1' then redis.call('HSET', job, 'woken', due)
  elseif stage == poll_stage then redis.call('ZADD', clock, 'XX', 'LT', due, member) end
end
return counted('due', resumed)
