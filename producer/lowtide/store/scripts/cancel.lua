-- Asks a batch to stop: raises its flag and makes its waiting jobs due at once. The requests of a bundled batch end at
-- once: they get a job of their own that is cancelled already, whose stage writes their outcome, in the lower turn. With
-- the last batch of a bundle that runs, the bundle is stopped. Its jobs that wait for a budget are due at once.
-- KEYS: batch, clock (of create, poll and settle), census
-- ARGV: job_prefix (of the ids of its jobs), batch_prefix (of a batch's hash), batch_member, lane_prefix, job_hash,
--       job_member (prefixes), cancelled... (fields of that job, in pairs)
-- Returns the batch's state from before, or nil where there is no batch.
local state, bundle, total, provider, model =
  unpack(redis.call('HMGET', batch, 'state', 'bundle', 'total', 'provider', 'model'))
if not runs(state) then return state end
stop(batch, census, clock, job_hash .. job_prefix, job_member .. job_prefix)
if not bundle or bundle == '' then return state end
local job = job_prefix .. 1
redis.call('HSET', batch, 'jobs', 1, 'open', 1)
redis.call('HSET', job_hash .. job, 'id', job, 'number', 1, 'first', 0, 'last', total, 'requests', total, 'sparse', 0,
  unpack(cancelled))
count_in(job_hash .. job, census, 'jobs|cancelled|' .. provider .. '|' .. model)
redis.call('ZADD', clock, lower_turn(), job_member .. job)
local of_bundle = batch_prefix .. bundle
if redis.call('HINCRBY', of_bundle, 'bundled_running', -1) == 0 and runs(redis.call('HGET', of_bundle, 'state')) then
  stop(of_bundle, census, clock, job_hash .. bundle .. '-', job_member .. bundle .. '-')
  -- No batch may be added to it any more.
  local lane = redis.call('HGET', of_bundle, 'lane')
  if lane and lane ~= '' and redis.call('GET', lane_prefix .. lane) == bundle then
    redis.call('DEL', lane_prefix .. lane)
  end
  redis.call('HSET', of_bundle, 'lane', '')
  wake(of_bundle, batch_member .. bundle, clock, score(now()))
end
-- The budget that a job of the bundle waits for may be that of this batch.
for number = 1, steps(redis.call('HGET', of_bundle, 'jobs')) do
  local name = bundle .. '-' .. number
  if redis.call('HGET', job_hash .. name, 'awaits') == 'budget' then
    wake(job_hash .. name, job_member .. name, clock, score(now()))
  end
end
return state
