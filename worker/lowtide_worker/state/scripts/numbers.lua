-- Functions of the scripts that give numbers to new jobs of a batch. They declare batch, job_hash (prefix), and numbers
-- (JSON: the highest number of a job that Redis has forgotten, 0 for none, and the number of each new job, 0 for one
-- that was never made before).

-- The number of the new job at `index`. One that was never made before gets a number beyond those of all others, also
-- of those that Redis has forgotten: a job is found at the provider by its number.
local function number_of(index)
  local given = cjson.decode(numbers)
  local highest, number = math.max(tonumber(redis.call('HGET', batch, 'jobs')), given[1]), given[index + 1]
  if number == 0 or exists(job_hash .. number) then number = highest + 1 end
  redis.call('HSET', batch, 'jobs', math.max(highest, number))
  return number
end
