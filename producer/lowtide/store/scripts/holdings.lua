-- Reads what budgets hold for jobs under way, and how many jobs wait for each.
-- KEYS: reserved... (hashes with the estimated cost of the jobs of each budget)
-- ARGV: job_hash (prefix), waiting_for... (for each budget the sorted set of the jobs that wait for it)
-- Returns {held, waiting} for each budget: the estimated cost that is not paid yet, in nano-dollars, and the jobs.

-- A key that another program has changed must not hide all other budgets.
local function read(...)
  local reply = redis.pcall(...)
  return not (type(reply) == 'table' and reply.err) and reply or nil
end

local found = {}
for index, name in ipairs(reserved) do
  local held, jobs = 0, read('HGETALL', name) or {}
  for at = 1, #jobs, 2 do
    local job = job_hash .. jobs[at]
    -- Admission forgets those of jobs that do not exist any more.
    if exists(job) then
      local paid = amount(read('HGET', job, 'paid_cost')) or 0
      held = held + math.max(0, (amount(jobs[at + 1]) or 0) - paid)
    end
  end
  found[index] = {string.format('%.0f', held), read('ZCARD', waiting_for[index]) or 0}
end
return found
