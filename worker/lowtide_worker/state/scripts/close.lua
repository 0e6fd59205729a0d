-- Closes a job whose requests are all settled, or handed on to retry jobs; with the last, ends the batch. Requests with
-- a pool join the retry job of that pool, where it is not created yet and has room for them.
-- KEYS: job, batch, clock, carried (prefix of a retry job's bitmap), census, counters, quota (of the model),
--       result_index (of the job), counted_rows (bitmap of the job), known_strangers (set of the job)
-- ARGV: member (of the job), token, stage (of the closed job), batch_member, batch_stage (of the finished batch),
--       retention (seconds a finished batch is kept), job_hash, job_member, job_id (prefixes), error (of the job, as
--       JSON; "" for none), tidy ("1" if no surplus results are left, which the last job ensures), counted (name of
--       a retry job in the census), index_moved ("1" if the spool has the result index), entity_prefix, reserved_prefix, waiting_for_prefix (see budgets.lua), estimated (tokens
--       of the rows that reported theirs), reported (tokens of the same), ended (status of requests that end without
--       stored results; "" for none), unstored (their number), linger (seconds that the job of a pool waits for more
--       requests while other jobs of the batch are at work), enough (requests of one that is due at once), most,
--       most_bytes (of its requests), numbers (see numbers.lua), totals... (counter, amount pairs of all
--       batches), jobs... (of each retry job: the length of its fields, its
--       pool or "", the bitmap of its requests, the partial answers that the job of the pool must continue and those that
--       it then continues, and its fields in pairs; its id and number are added)
-- Returns {closed (0 or 1), final state of the batch or ""}; with nothing changed {1, "untidy"} where they must be made
-- tidy first, {1, "unbalanced"} where the batch's last job leaves requests without a result, and {1, "outdated"} where the
-- job of a pool continues other answers now.
if held_by_other(job, token) then return {0, ''} end
local last = #jobs == 0 and tonumber(redis.call('HGET', batch, 'open')) <= 1
local found, balanced = counts_of(batch, ended, unstored)
if last then
  if not balanced then return {1, 'unbalanced'} end
  if tidy ~= '1' then return {1, 'untidy'} end
end
-- Whether the job of a pool may get more requests. Where an upload or a create has begun, or may begin now, it has the
-- requests that it had.
local function is_open(number)
  local state, busy, granted, input, creates, size = unpack(redis.call('HMGET', job_hash .. number, 'state', 'busy',
    'granted', 'input', 'creates', 'bytes'))
  return state == 'planned' and busy == '0' and (granted or '') == '' and (input or '') == ''
    and finite(creates or 0) == 0 and finite(size) ~= nil
end

-- The retries as tables of their fields. `before` and `together` are files of partial answers.
local retries, pools, at = {}, {}, 1
for pool, number in pairs(decoded(redis.call('HGET', batch, 'pools'))) do pools[pool] = finite(number) end
while at <= #jobs do
  local retry = {fields = slice(jobs, at + 5, at + 4 + jobs[at])}
  for index = 1, #retry.fields, 2 do retry[retry.fields[index]] = retry.fields[index + 1] end
  retry.pool, retry.bitmap, retry.before, retry.together = unpack(jobs, at + 1, at + 4)
  retries[#retries + 1] = retry
  local number = pools[retry.pool]
  if (retry.partial or '') ~= '' and number and is_open(number)
    and redis.call('HGET', job_hash .. number, 'partial') ~= retry.before then
    return {1, 'outdated'}
  end
  at = at + 5 + #retry.fields
end
local due = score(now())
redis.call('HSET', job, 'stage', stage, 'busy', '0', 'failures', '0', 'problem', '')
redis.call('ZADD', clock, due, member)
if index_moved == '1' then redis.call('DEL', result_index) end
-- All its rows are counted.
redis.call('DEL', counted_rows, known_strangers)
add_all(counters, totals)
if ended ~= '' then redis.call('HINCRBY', batch, ended, unstored) end
if tonumber(estimated) > 0 then correct(quota, tonumber(estimated), tonumber(reported)) end
-- All its rows are counted as paid.
local names = decoded(redis.call('HGET', job, 'budgets'))
if #names > 0 then
  local estimate, paid, rows, requests = unpack(redis.call('HMGET', job, 'estimate', 'paid_cost', 'priced_rows', 'requests'))
  estimate, paid, rows = tonumber(estimate or '') or 0, tonumber(paid or '') or 0, tonumber(rows or '') or 0
  if rows > 0 and estimate > 0 then
    redis.call('HINCRBY', batch, 'closed_cost', paid)
    redis.call('HINCRBY', batch, 'closed_estimate', math.ceil(estimate * rows / math.max(1, rows, requests)))
  end
  give_back(job, redis.call('HGET', job, 'id'), member)
  wake_for(names, clock)
end
-- Where its requests run again, the batch has not failed.
if error ~= '' and #jobs == 0 then redis.call('HSET', batch, 'error', error) end
-- Adds to the bitmap of a job the bits of another one. Both begin at a whole byte of the batch's bitmaps: at `from` and
-- `start`. Returns where the bitmap begins now, and how many bits are new.
local function add_bits(key, from, bitmap, start)
  if start < from then
    redis.call('SET', key, string.rep('\0', (from - start) / 8) .. (redis.call('GET', key) or ''))
    from = start
  end
  local news = 0
  for at = 1, #bitmap do
    local byte = string.byte(bitmap, at)
    for bit = 0, byte > 0 and 7 or -1 do
      if math.floor(byte / 2 ^ (7 - bit)) % 2 == 1 then
        news = news + 1 - redis.call('SETBIT', key, start - from + 8 * (at - 1) + bit, 1)
      end
    end
  end
  return from, news
end

-- Adds the requests of a retry to the job of its pool, if that is open and has room.
local function joins(number, retry)
  if not number or not is_open(number) then return false end
  local job = job_hash .. number
  local requests, size, first, last = unpack(redis.call('HMGET', job, 'requests', 'bytes', 'first', 'last'))
  requests, size, first, last = finite(requests), finite(size), finite(first), finite(last)
  -- One that is damaged gets no more.
  if not (requests and size and first and last) then return false end
  if requests + retry.requests > tonumber(most) or size + retry.bytes > tonumber(most_bytes) then return false end
  local from, news = add_bits(carried .. number, first, retry.bitmap, tonumber(retry.first))
  redis.call('HSET', job, 'first', from, 'last', math.max(last, retry.last), 'requests', requests + news,
    'bytes', size + retry.bytes, 'partial', retry.together)
  -- They are counted again.
  redis.call('HDEL', job, 'tokens', 'least', 'output_tokens', 'least_output')
  if requests + news >= tonumber(enough) then wake(job, job_member .. number, clock, due) end
  return true
end

local opened = -1
for index, retry in ipairs(retries) do
  local pooled, before = retry.pool ~= '', pools[retry.pool]
  if not pooled or not joins(before, retry) then
    local number = number_of(index)
    redis.call('SET', carried .. number, retry.bitmap)
    redis.call('HSET', job_hash .. number, 'id', job_id .. number, 'number', number, unpack(retry.fields))
    count_in(job_hash .. number, census, counted)
    local lingers = pooled and tonumber(retry.requests) < tonumber(enough)
    redis.call('ZADD', clock, lingers and score(now() + linger) or due, job_member .. number)
    if pooled then
      -- The one before gets no more.
      if before and is_open(before) then wake(job_hash .. before, job_member .. before, clock, due) end
      pools[retry.pool] = number
      redis.call('HSET', batch, 'pools', cjson.encode(pools))
    end
    opened = opened + 1
  end
end
local left, waiting = redis.call('HINCRBY', batch, 'open', opened), {}
for _, number in pairs(pools) do
  if is_open(number) then waiting[#waiting + 1] = number end
end
-- No other job is left whose requests might join them.
for _, number in ipairs(#waiting == left and waiting or {}) do
  wake(job_hash .. number, job_member .. number, clock, due)
end
if not last then return {1, ''} end
return {1, finish(batch, census, found, clock, batch_member, batch_stage, retention)}
