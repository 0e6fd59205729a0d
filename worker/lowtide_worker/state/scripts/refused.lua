-- Takes a job out of the live ones that the provider has refused because a quota is used up, and lowers a limit: that
-- of the tokens of its model, if other jobs of it are live, or if the job was refused often; else that of the slots.
-- KEYS: job, live, limit (lowered number of slots), models, served, clock
-- ARGV: token, job_id, most (live jobs), model, job_hash, job_member (prefixes), waiting_prefix, strand_prefix,
--       strands_prefix, strand_of_prefix, share_prefix, matched_prefix (see shares.lua), tokens_prefix, quota_prefix (see turns.lua), entity_prefix, reserved_prefix, waiting_for_prefix (see
--       budgets.lua), often ("1" if it was refused more than once before), lowered_ms (how long fewer
--       slots last)
-- Returns how many were woken, -1 if another worker holds the job now.
if held_by_other(job, token) then return -1 end
local own = amount(redis.call('HGET', tokens_prefix .. model, job_id)) or 0
leave(job, model, job_id)
-- The provider has no job of it, so budgets hold nothing for it until it asks again.
wake_for(give_back(job, job_id, job_member .. job_id), clock)
local others, jobs = live_tokens(model)
if jobs > 0 or often == '1' then
  local quota = read_quota(quota_prefix .. model)
  local refused = others + own
  -- As many were taken before: the quota is another one now, or it was not about tokens.
  if (quota.taken or 0) >= refused then quota.taken = nil end
  local learned = math.max(1, others, quota.taken or 0, math.floor(refused / 2))
  quota.learned = math.min(learned, limit_of(quota) or learned)
  quota.lowered = now()
  write_quota(quota_prefix .. model, quota)
else
  redis.call('SET', limit, math.max(1, redis.call('ZCARD', live)), 'PX', lowered_ms)
end
return wake_next(clock, job_member)
