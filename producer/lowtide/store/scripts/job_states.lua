-- Reads the states of a batch's jobs as runs of equal states, so that the answer about thousands of jobs is short.
-- KEYS: batch
-- ARGV: job_prefix (of the hashes of its jobs), first, last (numbers of jobs)
-- Returns for each run, in the order of the jobs: state ("" of jobs that do not exist, "?" of damaged ones), whether its
-- jobs wait for a slot, tokens or a quota (1 or 0), and sums: jobs, requests, estimated tokens, requests that are done.
local runs, run = {}, nil
if not exists(batch) then return runs end
for number = tonumber(first), tonumber(last) do
  local found = redis.pcall('HMGET', job_prefix .. number,
    'state', 'requests', 'tokens', 'done_requests', 'awaits', 'throttled', 'granted')
  local state, requests, tokens, done, awaits, throttled, granted = unpack(found)
  requests, done = finite(requests) or 0, finite(done) or 0
  local refused = (finite(throttled) or 0) > 0 and (granted or '') == ''
  local waits = ((awaits or '') ~= '' or refused) and 1 or 0
  state = found.err and '?' or state or ''
  if not run or run[1] ~= state or run[2] ~= waits then
    run = {state, waits, 0, 0, 0, 0}
    runs[#runs + 1] = run
  end
  run[3], run[4] = run[3] + 1, run[4] + requests
  run[5], run[6] = run[5] + (finite(tokens) or 0), run[6] + math.min(done, requests)
end
return runs
