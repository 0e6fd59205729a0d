-- Asks a batch to stop: raises its flag and makes its waiting jobs due at once. The requests of a bundled batch end at
-- once: they get a job of their own that is cancelled already, whose stage writes their outcome.
-- KEYS: batch, clock (of create, poll and settle), census
-- ARGV: job_hash, job_member (prefixes, followed by the job's number), job_id (prefix), batch_prefix (of a batch's hash),
--       batch_member, bundled, lane_prefix, every_job_hash, every_job_member (prefixes), cancelled... (fields of that job, in pairs)
-- Returns the batch's state from before, or nil where there is no batch.
local function runs(state) return state == 'pending' or state == 'running' end
local function stop(hash)
  redis.call('HSET', hash, 'state', 'cancelling', 'cancel', '1')
  recount(hash, census, 'cancelling')
end
local due = score(now())
local state, bundle, total, provider, model =
  unpack(redis.call('HMGET', batch, 'state', 'bundle', 'total', 'provider', 'model'))
if not runs(state) then return state end
stop(batch)
if not bundle or bundle == '' then
  for number = 1, tonumber(redis.call('HGET', batch, 'jobs')) do
    wake(job_hash .. number, job_member .. number, clock, due)
  end
  return state
end
redis.call('HSET', batch, 'jobs', 1, 'open', 1)
redis.call('HSET', job_hash .. 1, 'id', job_id .. 1, 'number', 1, 'first', 0, 'last', total, 'requests', total,
  'sparse', 0, unpack(cancelled))
count_in(job_hash .. 1, census, 'jobs|cancelled|' .. provider .. '|' .. model)
redis.call('ZADD', clock, due, job_member .. 1)
for _, other in ipairs(redis.call('ZRANGE', bundled .. bundle, 0, -1)) do
  if runs(redis.call('HGET', batch_prefix .. other, 'state')) then return state end
end
-- No batch waits for the bundle any more.
if runs(redis.call('HGET', batch_prefix .. bundle, 'state')) then
  stop(batch_prefix .. bundle)
  -- No batch may be added to it any more.
  local lane = redis.call('HGET', batch_prefix .. bundle, 'lane')
  if lane and lane ~= '' and redis.call('GET', lane_prefix .. lane) == bundle then
    redis.call('DEL', lane_prefix .. lane)
  end
  redis.call('HSET', batch_prefix .. bundle, 'lane', '')
  wake(batch_prefix .. bundle, batch_member .. bundle, clock, due)
  for number = 1, tonumber(redis.call('HGET', batch_prefix .. bundle, 'jobs')) do
    local name = bundle .. '-' .. number
    wake(every_job_hash .. name, every_job_member .. name, clock, due)
  end
end
return state
