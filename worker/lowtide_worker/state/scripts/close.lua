-- Closes a job whose requests are all settled, or handed on to retry jobs; with the last, ends the batch.
-- KEYS: job, batch, clock, carried (prefix of a retry job's bitmap), census, counters, quota (of the model)
-- ARGV: member (of the job), token, stage (of the closed job), batch_member, batch_stage (of the finished batch),
--       retention (seconds a finished batch is kept), job_hash, job_member, job_id (prefixes), error (of the job, as
--       JSON; "" for none), tidy ("1" if no surplus results are left, which the last job ensures), counted (name of
--       a retry job in the census), estimated (tokens of the rows that reported theirs), reported (tokens of the same),
--       totals... (counter, amount pairs of all batches), jobs... (of each retry job: the length of its fields, the
--       bitmap of its requests, and its fields in pairs; its id and number are added)
-- Returns {closed (0 or 1), final state of the batch or ""}; with nothing changed {1, "untidy"} where they must be made
-- tidy first, and {1, "unbalanced"} where the batch's last job leaves requests without a result.
if held_by_other(job, token) then return {0, ''} end
local last = #jobs == 0 and tonumber(redis.call('HGET', batch, 'open')) <= 1
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
local opened, at = -1, 1
while at <= #jobs do
  local number, fields = redis.call('HINCRBY', batch, 'jobs', 1), slice(jobs, at + 2, at + 1 + jobs[at])
  redis.call('SET', carried .. number, jobs[at + 1])
  redis.call('HSET', job_hash .. number, 'id', job_id .. number, 'number', number, unpack(fields))
  count_in(job_hash .. number, census, counted)
  redis.call('ZADD', clock, due, job_member .. number)
  opened, at = opened + 1, at + 2 + #fields
end
redis.call('HINCRBY', batch, 'open', opened)
if not last then return {1, ''} end
return {1, finish(batch, census, found, clock, batch_member, batch_stage, retention)}
