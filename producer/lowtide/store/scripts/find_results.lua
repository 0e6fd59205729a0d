-- Finds where the results of requests may be: in the files of the jobs that carry them. It changes nothing.
-- KEYS: batch (the one with the jobs: the requests' own, or its bundle), settled (bitmap of the requests' own batch),
--       bundled (the batches of the bundle)
-- ARGV: batch_id (of the requests' own batch), job_hash, carried, result_index (prefixes; the number of a job follows),
--       entry_bytes (of an index), ordinals... (in their own batch)
-- Returns for each ordinal {settled (1 if the request is), then of each such job, the newest first: number, segments,
-- the request's position among the job's ordinals, and its entry of the job's index (zeros or "" where it has none)}.
local function has_bit(bitmap, at)
  local byte = string.byte(redis.call('GETRANGE', bitmap, math.floor(at / 8), math.floor(at / 8))) or 0
  return math.floor(byte / 2 ^ (7 - at % 8)) % 2 == 1
end
local shift = finite(redis.call('ZSCORE', bundled, batch_id)) or 0
local jobs = {}
for number = steps(redis.call('HGET', batch, 'jobs')), 1, -1 do
  local first, last, sparse, segments =
    unpack(redis.call('HMGET', job_hash .. number, 'first', 'last', 'sparse', 'segments'))
  first, last = finite(first), finite(last)
  if first and last then
    jobs[#jobs + 1] = {number = number, first = first, last = last, sparse = sparse == '1',
      segments = finite(segments) or 0}
  end
end
local found = {}
for index, ordinal in ipairs(ordinals) do
  local places, at = {has_bit(settled, tonumber(ordinal)) and 1 or 0}, ordinal + shift
  for _, job in ipairs(jobs) do
    local position = at - job.first
    if position >= 0 and at < job.last and (not job.sparse or has_bit(carried .. job.number, position)) then
      local start = position * entry_bytes
      local entry = redis.call('GETRANGE', result_index .. job.number, start, start + entry_bytes - 1)
      for _, value in ipairs({job.number, job.segments, position, entry}) do places[#places + 1] = value end
    end
  end
  found[index] = places
end
return found
