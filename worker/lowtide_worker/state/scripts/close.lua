-- Closes a job whose requests are all settled, or handed on to a retry job; with the last, ends the batch.
-- KEYS: job, batch, clock, carried (prefix of the retry job's bitmap), census, counters, quota (of the model)
-- ARGV: member (of the job), token, stage (of the closed job), batch_member, batch_stage (of the finished batch),
--       retention (seconds a finished batch is kept), job_hash, job_member, job_id (prefixes), error (of the job, as
--       JSON; "" for none), bitmap (of the retry job's requests; "" for no retry job), tidy ("1" if no surplus results
--       are left, which the last job ensures), counted (name of the retry job in the census), estimated (tokens of the
--       rows that reported theirs), reported (tokens of the same), totals... (counter, amount pairs of all batches),
--       fields... (of the retry job, in pairs; its id and number are added)
-- Returns {closed (0 or 1), final state of the batch or ""}; with nothing changed {1, "untidy"} where they must be made
-- tidy first, and {1, "unbalanced"} where the batch's last job leaves requests without a result.
if held_by_other(job, token) then return {0, ''} end
local last = bitmap == '' and tonumber(redis.call('HGET', batch, 'open')) <= 1
local found, balanced = counts_of(batch)
if last then
  if not balanced then return {1, 'unbalanced'} end
  if tidy ~= '1' then return {1, 'untidy'} end
end
local due = score(now())
redis.call('HSET', job, 'stage', stage, 'busy', '0')
redis.call('ZADD', clock, due, member)
add_all(counters, totals)
if tonumber(estimated) > 0 then correct(quota, tonumber(estimated), tonumber(reported)) end
if error ~= '' then redis.call('HSET', batch, 'error', error) end
if bitmap ~= '' then
  local number = redis.call('HINCRBY', batch, 'jobs', 1)
  redis.call('SET', carried .. number, bitmap)
  redis.call('HSET', job_hash .. number, 'id', job_id .. number, 'number', number, unpack(fields))
  count_in(job_hash .. number, census, counted)
  redis.call('ZADD', clock, due, job_member .. number)
  return {1, ''}
end
redis.call('HINCRBY', batch, 'open', -1)
if not last then return {1, ''} end
return {1, finish(batch, census, found, clock, batch_member, batch_stage, retention)}
