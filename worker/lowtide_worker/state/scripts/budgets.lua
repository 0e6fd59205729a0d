-- Functions of the scripts that keep budgets. A budget is the `max_cost` of a batch, or the limit of a label for a day or
-- a month. It holds the estimated cost of each job that has a slot, from then until the job is closed and all its rows are
-- counted as paid. They use names that these scripts declare: entity_prefix, job_hash, reserved_prefix (of what a budget
-- holds for jobs), waiting_for_prefix (of the members that wait for a budget).

-- What rows have cost: those without a price count as the others do.
local function spent_on(paid, unpriced, mean)
  return paid + math.ceil(unpriced * mean)
end

-- What the rows of a batch cost for each nano-dollar of the price table, what a row costs on average, and what was paid.
-- `average` is the estimated cost of one of its requests; ten of them weigh as much as rows. The ratio is that of whole
-- jobs that are closed: rows are compared with the estimates of the same requests, which may differ from the average.
local function ratio_of_costs(batch, average)
  local found = redis.call('HMGET', batch, 'paid_cost', 'priced_rows', 'unpriced', 'closed_cost', 'closed_estimate')
  for index = 1, 5 do found[index] = amount(found[index]) or 0 end
  local paid, rows, unpriced, closed, estimated = unpack(found)
  local mean = (paid + 10 * average) / (rows + 10)
  local ratio = average > 0 and (closed + 10 * average) / (estimated + 10 * average) or 1
  return ratio, mean, spent_on(paid, unpriced, mean)
end

-- The estimated cost of the jobs of a budget that is not paid yet, and their number; without one job.
local function reserved_of(name, but)
  local sum, jobs = 0, 0
  local found = redis.call('HGETALL', reserved_prefix .. name)
  for index = 1, #found, 2 do
    local id = found[index]
    if not exists(job_hash .. id) then
      redis.call('HDEL', reserved_prefix .. name, id)
    elseif id ~= but then
      local paid = amount(redis.pcall('HGET', job_hash .. id, 'paid_cost')) or 0
      sum, jobs = sum + math.max(0, (amount(found[index + 1]) or 0) - paid), jobs + 1
    end
  end
  return sum, jobs
end

-- What was paid under a label on some days, where a row costs `mean`.
local function paid_on(days, fields, mean)
  local sum = 0
  for _, day in ipairs(days) do
    -- Damaged costs must not stop work.
    local found = redis.pcall('HMGET', day, fields .. 'cost', fields .. 'unpriced')
    sum = sum + spent_on(amount(found[1]) or 0, amount(found[2]) or 0, mean)
  end
  return sum
end

-- How much of a job's cost by the price table its budgets allow: all of it, or as much as the tightest has left, if that is
-- a twentieth of its limit; 0 where it must wait. Then also the budget that lacks, as JSON, and whether the job fails:
-- nothing can free a part of the budget.
local function affordable(found, batch, average, id, cost, least)
  local ratio, mean, paid = ratio_of_costs(batch, average)
  local part = cost
  for _, budget in ipairs(found) do
    local limit, spent = tonumber(budget.limit), budget.period and paid_on(budget.days, budget.fields, mean) or paid
    local reserved, jobs = reserved_of(budget.name, id)
    local left = limit - spent - reserved
    if cost * ratio > left then
      local some = left >= limit / 20 and math.floor(left / ratio) or 0
      if some < least then
        local about = {budget = budget.name, period = budget.period, never = budget.period and least * ratio > limit or nil}
        -- cjson would round to 14 digits.
        local amounts = string.format(',"limit":%.0f,"spent":%.0f,"reserved":%.0f,"needed":%.0f', limit, spent, reserved,
          math.ceil(least * ratio))
        local ends = budget.period and string.format(',"until":%.0f', budget['until']) or ''
        return 0, ratio, string.sub(cjson.encode(about), 1, -2) .. amounts .. ends .. '}', budget.fails and jobs == 0
      end
      part = math.min(part, some)
    end
  end
  return part, ratio
end

-- Has all budgets of a job hold its estimated cost.
local function reserve(names, job, id, member, cost)
  for _, name in ipairs(names) do
    redis.call('HSET', reserved_prefix .. name, id, cost)
    redis.call('ZREM', waiting_for_prefix .. name, member)
  end
  redis.call('HSET', job, 'reserved', cost, 'shortage', '')
end

-- Has the budgets of a job hold nothing for it. Returns those that held something.
local function give_back(job, id, member)
  local freed = {}
  for _, name in ipairs(decoded(redis.call('HGET', job, 'budgets'))) do
    redis.call('ZREM', waiting_for_prefix .. name, member)
    if redis.call('HDEL', reserved_prefix .. name, id) == 1 then freed[#freed + 1] = name end
  end
  redis.call('HSET', job, 'reserved', '')
  return freed
end

-- Has the budgets of a job that are not among `names` hold nothing for it. Returns those that held something.
local function leave_budgets(job, id, member, names)
  local stays, left, freed = {}, {}, {}
  for _, name in ipairs(names) do stays[name] = true end
  for _, name in ipairs(decoded(redis.call('HGET', job, 'budgets'))) do
    if stays[name] then
      left[#left + 1] = name
    else
      redis.call('ZREM', waiting_for_prefix .. name, member)
      if redis.call('HDEL', reserved_prefix .. name, id) == 1 then freed[#freed + 1] = name end
    end
  end
  redis.call('HSET', job, 'budgets', #left > 0 and cjson.encode(left) or '')
  return freed
end

-- Makes jobs due that wait for one of these budgets: the first hundred of each, which ask again.
local function wake_for(names, clock)
  local due = score(now())
  for _, name in ipairs(names) do
    local woken = 0
    while woken < 100 do
      local next = redis.call('ZPOPMIN', waiting_for_prefix .. name)
      if not next[1] then break end
      if wake(entity_prefix .. next[1], next[1], clock, due) then woken = woken + 1 end
    end
  end
end
