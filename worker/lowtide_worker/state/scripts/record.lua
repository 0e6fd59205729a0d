-- Counts a segment whose results are stored, once; with the job's last segment the job is due to be settled.
-- KEYS: segment, job, batch, clock (of the segment), job_clock, census, counters, result_index (of the job), costs (of
--       the day)
-- ARGV: member (of the segment), token, job_member, handler_waits ("1" if one waits for the results), lease (in
--       seconds), most (names that are counted by themselves), others (the name of those beyond), bundled (JSON: what the
--       segment holds for each batch of a bundle, see `BundledTally`; "" for no bundle), batch_prefix (of a batch's hash),
--       batch_member (prefix), batch_stage (of a finished batch), retention (seconds that one is kept), jobs_hash,
--       jobs_member (prefixes of the batch's jobs), cost_names (JSON: the dimension of the counts of names, the most names
--       of a dimension, the name of those beyond, the seconds for which a day is kept), counts... (counter, amount pairs
--       of the batch), totals... (the same of all batches), paid... (counter, amount pairs of the batch and the job),
--       failed_by... (reason, amount pairs), answered_by... (model, amount pairs), retried_by... (reason, amount pairs of
--       rows whose requests run again; the job keeps them until it is closed), places... (offset in the
--       index, and entries, for each run of results), daily... (of each name of a dimension: the
--       dimension, the name, "1" if it is always counted by itself, the number of amounts, and measure, amount pairs)
-- Returns -1 if another worker holds the segment now or its batch is deleted, else the number of segments that the job
-- has left.
-- Of a batch that is deleted, a counter would bring back a part.
if held_by_other(segment, token) or not exists(batch) then return -1 end
for index = 1, #counts, 2 do redis.call('HINCRBY', batch, counts[index], counts[index + 1]) end
add_all(counters, totals)
-- JSON with amounts by name. Names come from outside, so those beyond the first few are counted together.
local function tallied(json, amounts)
  local names, kept = {}, 0
  for name, count in pairs(decoded(json)) do names[name], kept = finite(count) or 0, kept + 1 end
  for index = 1, #amounts, 2 do
    local name = amounts[index]
    if not names[name] then
      if kept < tonumber(most) then kept = kept + 1 else name = others end
    end
    names[name] = (names[name] or 0) + amounts[index + 1]
  end
  return cjson.encode(names)
end
for index = 1, #places, 2 do redis.call('SETRANGE', result_index, places[index], places[index + 1]) end
-- Adds what was paid for the rows to the costs of the day.
local function count_costs()
  local names, limit, beyond, kept = unpack(cjson.decode(cost_names))
  local at = 1
  while at <= #daily do
    local dimension, name, always, amounts = unpack(daily, at, at + 3)
    local prefix = dimension .. '|' .. name .. '|'
    if always ~= '1' and not redis.call('HGET', costs, prefix .. 'requests') then
      local known = names .. '|' .. dimension .. '|count'
      if tonumber(redis.call('HGET', costs, known) or 0) < limit then
        redis.call('HINCRBY', costs, known, 1)
      else
        prefix = dimension .. '|' .. beyond .. '|'
      end
    end
    for index = at + 4, at + 3 + 2 * amounts, 2 do
      redis.call('HINCRBY', costs, prefix .. daily[index], daily[index + 1])
    end
    at = at + 4 + 2 * amounts
  end
  redis.call('EXPIRE', costs, kept)
end
-- A damaged hash of costs must not stop work.
if #daily > 0 then pcall(count_costs) end
for index = 1, #paid, 2 do
  redis.call('HINCRBY', batch, paid[index], paid[index + 1])
  redis.call('HINCRBY', job, paid[index], paid[index + 1])
end
local number, partial = unpack(redis.call('HMGET', segment, 'number', 'partial'))
if partial then
  local others = redis.call('HGET', job, 'partial_segments')
  redis.call('HSET', job, 'partial_segments', (others and others .. ' ' or '') .. number .. ':' .. partial)
end
if #retried_by > 0 then
  redis.call('HSET', job, 'retried_by', tallied(redis.call('HGET', job, 'retried_by'), retried_by))
end
if #failed_by > 0 then
  redis.call('HSET', batch, 'reasons', tallied(redis.call('HGET', batch, 'reasons'), failed_by))
end
if #answered_by > 0 then
  redis.call('HSET', batch, 'models', tallied(redis.call('HGET', batch, 'models'), answered_by))
end
if bundled ~= '' then
  local ended = 0
  for _, part in ipairs(cjson.decode(bundled)) do
    local batch = batch_prefix .. part.batch_id
    if exists(batch) then
      for counter, amount in pairs(part.counts) do increase(batch, counter, amount) end
      if part.failed_by then
        redis.call('HSET', batch, 'reasons', tallied(redis.call('HGET', batch, 'reasons'), part.failed_by))
      end
      if part.answered_by then
        redis.call('HSET', batch, 'models', tallied(redis.call('HGET', batch, 'models'), part.answered_by))
      end
      if part.range then
        local ranges = decoded(redis.call('HGET', batch, 'stored') or '[]')
        ranges[#ranges + 1] = part.range
        -- Ranges of a damaged record may be none that JSON can hold.
        local holds, stored = pcall(cjson.encode, ranges)
        if holds then redis.call('HSET', batch, 'stored', stored) end
      end
      local found, balanced = counts_of(batch)
      -- One that was cancelled ends with the job that writes the outcome of the rest.
      if balanced and redis.call('HGET', batch, 'state') == 'running' then
        finish(batch, census, found, job_clock, batch_member .. part.batch_id, batch_stage, retention)
        ended = ended + 1
      else
        publish(batch, redis.call('HGET', batch, 'state'))
      end
    end
  end
  -- No batch waits any more for the jobs that the bundle may still have: those of batches that were cancelled.
  local _, balanced = counts_of(batch)
  if ended > 0 and redis.call('HINCRBY', batch, 'bundled_running', -ended) == 0 and not balanced then
    stop(batch, census, job_clock, jobs_hash, jobs_member)
  end
end
if handler_waits == '1' then
  redis.call('HSET', segment, 'stored', '1')
  redis.call('HDEL', segment, 'granted', 'firsts', 'ordinals', 'strangers')
  redis.call('HINCRBY', batch, 'undelivered', 1)
  recount(segment, census, 'undelivered')
  redis.call('ZADD', clock, 'XX', score(now() + lease), member)
else
  remove(segment, census)
  redis.call('ZREM', clock, member)
end
publish(batch, redis.call('HGET', batch, 'state'))
local left = redis.call('HINCRBY', job, 'segments_left', -1)
-- While `collected` says that more segments will come, the job is still held by its collect.
if left == 0 and (redis.call('HGET', job, 'collected') or '') == '' then
  -- A new token: a worker that has just found segments left must not put the job back to sleep.
  redis.call('HINCRBY', job, 'token', 1)
  redis.call('ZADD', job_clock, 'XX', score(now()), job_member)
end
return left
