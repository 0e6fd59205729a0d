-- Gives a job a slot among the provider's live jobs, and tokens of its model, if it is its turn and both are free, and if
-- its budgets leave enough for it.
-- KEYS: job, batch, live (sorted set of jobs), limit (lowered number of slots), models (sorted set: those that jobs wait
--       for), served (when tenants and lines got a slot), clock
-- ARGV: token, job_id, most (live jobs), priority (of the batch), created (when the batch was), model, configured (limit
--       of its enqueued tokens; "" for none), tokens (estimated, of the job), least (of them that it needs), output, least_output (the
--       same of output tokens), cost, least_cost (the same in nano-dollars, by the price table), average (cost of a request of
--       the batch; "" where no price is known, so that nothing is sent under a budget), job_hash,
--       job_member (prefixes), waiting_prefix, strand_prefix, strands_prefix, strand_of_prefix, share_prefix, matched_prefix (of a model's
--       line: see shares.lua), tokens_prefix (of a model's live tokens), quota_prefix,
--       budgets (JSON of those that the job is under: see `JobBudgets`; "" for none), entity_prefix, reserved_prefix, waiting_for_prefix (see budgets.lua)
-- Returns {granted, granted_cost, shortage}: the estimated tokens and the cost that the job may have, less than it has
-- where it is to be divided. 0
-- if it must wait, -1 if another worker holds it now, and -2 if the `max_cost` of its batch leaves too little for good.
-- `shortage` is the budget that lacks, as JSON, or "": none does, or no price is known.
if held_by_other(job, token) then return {-1, 0, ''} end
tokens, least, cost, least_cost = tonumber(tokens), tonumber(least), tonumber(cost), tonumber(least_cost)
local time = now()
redis.call('HSET', job, 'tokens', tokens, 'least', least)
if budgets ~= '' then
  redis.call('HSET', job, 'output_tokens', output, 'least_output', least_output, 'estimate', cost)
end
if redis.call('ZSCORE', live, job_id) then
  local granted = tonumber(redis.call('HGET', job, 'granted') or '') or tokens
  local given = amount(redis.call('HGET', tokens_prefix .. model, job_id)) or granted
  local names, reserved, paid_for = unpack(redis.call('HMGET', job, 'budgets', 'reserved', 'granted_cost'))
  paid_for = tonumber(paid_for or '') or cost
  -- It may have been divided since, or have left out some of its requests: what is more than it needs is free. What it
  -- lacks is not: its requests may be others than those for which it got less than all.
  local part, pays = math.min(tokens, granted), math.min(cost, paid_for)
  if part >= least and pays >= least_cost then
    if part < granted or pays < paid_for then
      redis.call('HSET', job, 'granted', part, 'granted_cost', pays)
      redis.call('HSET', tokens_prefix .. model, job_id, math.ceil(given * part / granted))
      if reserved and reserved ~= '' and paid_for > 0 then
        reserve(decoded(names), job, job_id, job_member .. job_id, math.ceil(reserved * pays / paid_for))
        wake_for(decoded(names), clock)
      end
    end
    return {part, pays, ''}
  end
  -- Its first request needs more than it got. It asks as a job without a slot does.
  leave(job, model, job_id)
  wake_for(give_back(job, job_id, job_member .. job_id), clock)
end
local found, affords, ratio, names = {}, cost, 0, {}
if budgets ~= '' then
  local lacks, for_good
  found = cjson.decode(budgets)
  for index, budget in ipairs(found) do names[index] = budget.name end
  if average == '' then
    lacks = ''
    for _, budget in ipairs(found) do for_good = for_good or budget.fails end
  else
    affords, ratio, lacks, for_good = affordable(found, batch, tonumber(average), job_id, cost, least_cost)
  end
  redis.call('HSET', job, 'budgets', cjson.encode(names))
  if lacks then
    leave(job, model, job_id)
    wake_for(give_back(job, job_id, job_member .. job_id), clock)
    redis.call('HSET', job, 'awaits', 'budget', 'shortage', lacks)
    if not for_good and lacks ~= '' then
      redis.call('ZADD', waiting_for_prefix .. cjson.decode(lacks).budget, score(time), job_member .. job_id)
    end
    wake_next(clock, job_member)
    return {for_good and -2 or 0, 0, lacks}
  end
  -- It may have said that no price was known.
  if redis.call('HGET', job, 'awaits') == 'budget' then redis.call('HSET', job, 'problem', '') end
end
local quota = read_quota(quota_prefix .. model)
if quota.configured ~= tonumber(configured) then
  quota.configured = tonumber(configured)
  write_quota(quota_prefix .. model, quota)
end
-- A job that waits asks again within the hour.
redis.call('ZADD', models, score(time), model)
redis.call('ZREMRANGEBYSCORE', models, '-inf', score(time - 604800))
join_line(model, job_id, turn_of(priority, created), batch)
local first, short, several = next_jobs()
for _, one in ipairs(first) do
  if one.id == job_id then
    charge(model, job_id, one.cost)
    leave_line(model, job_id)
    if several then
      for _, name in ipairs({names_of(one)}) do redis.call('ZADD', served, score(time), name) end
      redis.call('ZREMRANGEBYSCORE', served, '-inf', score(time - 3600))
    end
    redis.call('ZADD', live, string.format('%.3f', time), job_id)
    redis.call('HSET', tokens_prefix .. model, job_id, one.given)
    redis.call('HSET', job, 'granted', one.part, 'granted_cost', #names > 0 and affords or '', 'awaits', '')
    if #names > 0 then reserve(names, job, job_id, job_member .. job_id, math.ceil(affords * ratio)) end
    -- It has its turn now: what is refused afterwards waits for its pause.
    if redis.call('HGET', job, 'woken') == TURN then redis.call('HDEL', job, 'woken') end
    return {one.part, affords, ''}
  end
end
redis.call('HSET', job, 'awaits', short[model] and 'tokens' or 'slot', 'shortage', '')
-- A worker of an earlier version wakes the oldest. The next one may have to wait for minutes: it was not woken.
if first[1] and (tonumber(redis.call('ZSCORE', clock, job_member .. first[1].id)) or 0) > time + 300 then
  wake_next(clock, job_member)
end
return {0, 0, ''}
