-- Counts a segment whose results are stored, once; with the job's last segment the job is due to be settled.
-- KEYS: segment, job, batch, clock (of the segment), job_clock, census, counters
-- ARGV: member (of the segment), token, job_member, handler_waits ("1" if one waits for the results), lease (in
--       seconds), most (names that are counted by themselves), others (the name of those beyond), bundled (JSON: what the
--       segment holds for each batch of a bundle, see `BundledTally`; "" for no bundle), batch_prefix (of a batch's hash),
--       batch_member (prefix), batch_stage (of a finished batch), retention (seconds that one is kept), counts...
--       (counter, amount pairs of the batch), totals... (the same of all batches), paid... (counter, amount pairs of the
--       batch and the job), failed_by... (reason, amount pairs), answered_by... (model, amount pairs), retried_by...
--       (reason, amount pairs of rows whose requests run again; the job keeps them until it is closed)
-- Returns -1 if another worker holds the segment now or its batch is deleted, else the number of segments that the job
-- has left.
-- Of a batch that is deleted, a counter would bring back a part.
if held_by_other(segment, token) or not exists(batch) then return -1 end
for index = 1, #counts, 2 do redis.call('HINCRBY', batch, counts[index], counts[index + 1]) end
add_all(counters, totals)
-- JSON with amounts by name. Names come from outside, so those beyond the first few are counted together.
local function tallied(json, amounts)
  local readable, names = pcall(cjson.decode, json or '{}')
  if not readable or type(names) ~= 'table' then names = {} end
  local kept = 0
  for _ in pairs(names) do kept = kept + 1 end
  for index = 1, #amounts, 2 do
    local name = amounts[index]
    if not names[name] then
      if kept < tonumber(most) then kept = kept + 1 else name = others end
    end
    names[name] = (tonumber(names[name]) or 0) + amounts[index + 1]
  end
  return cjson.encode(names)
end
-- Rows of a segment from before the output was collected again come once more in a later segment, which counts them.
local number, partial = unpack(redis.call('HMGET', segment, 'number', 'partial'))
local recollected, partial_segments = unpack(redis.call('HMGET', job, 'recollected', 'partial_segments'))
if partial == '1' then
  redis.call('HSET', job, 'partial_segments', (partial_segments and partial_segments .. ' ' or '') .. number)
end
if tonumber(number or 0) >= tonumber(recollected or 0) then
  for index = 1, #paid, 2 do
    redis.call('HINCRBY', batch, paid[index], paid[index + 1])
    redis.call('HINCRBY', job, paid[index], paid[index + 1])
  end
  if #retried_by > 0 then
    redis.call('HSET', job, 'retried_by', tallied(redis.call('HGET', job, 'retried_by'), retried_by))
  end
end
if #failed_by > 0 then
  redis.call('HSET', batch, 'reasons', tallied(redis.call('HGET', batch, 'reasons'), failed_by))
end
if #answered_by > 0 then
  redis.call('HSET', batch, 'models', tallied(redis.call('HGET', batch, 'models'), answered_by))
end
if bundled ~= '' then
  for _, part in ipairs(cjson.decode(bundled)) do
    local batch = batch_prefix .. part.batch_id
    if exists(batch) then
      for counter, amount in pairs(part.counts) do redis.call('HINCRBY', batch, counter, amount) end
      if part.failed_by then
        redis.call('HSET', batch, 'reasons', tallied(redis.call('HGET', batch, 'reasons'), part.failed_by))
      end
      if part.answered_by then
        redis.call('HSET', batch, 'models', tallied(redis.call('HGET', batch, 'models'), part.answered_by))
      end
      if part.range then
        local ranges = cjson.decode(redis.call('HGET', batch, 'stored') or '[]')
        ranges[#ranges + 1] = part.range
        redis.call('HSET', batch, 'stored', cjson.encode(ranges))
      end
      local found, balanced = counts_of(batch)
      -- One that was cancelled ends with the job that writes the outcome of the rest.
      if balanced and redis.call('HGET', batch, 'state') == 'running' then
        finish(batch, census, found, job_clock, batch_member .. part.batch_id, batch_stage, retention)
      end
    end
  end
end
if handler_waits == '1' then
  redis.call('HSET', segment, 'stored', '1')
  redis.call('HDEL', segment, 'granted', 'ordinals')
  redis.call('HINCRBY', batch, 'undelivered', 1)
  recount(segment, census, 'undelivered')
  redis.call('ZADD', clock, 'XX', score(now() + lease), member)
else
  remove(segment, census)
  redis.call('ZREM', clock, member)
end
local left = redis.call('HINCRBY', job, 'segments_left', -1)
-- While `collected` says that more segments will come, the job is still held by its collect.
if left == 0 and (redis.call('HGET', job, 'collected') or '') == '' then
  -- A new token: a worker that has just found segments left must not put the job back to sleep.
  redis.call('HINCRBY', job, 'token', 1)
  redis.call('ZADD', job_clock, 'XX', score(now()), job_member)
end
return left
