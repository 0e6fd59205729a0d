-- Notes that the provider has taken a job: lowered limits go up again, that of slots by one, and that of tokens by an
-- eighth, if it was made use of and not lowered lately. Wakes those whose turn has come.
-- KEYS: job, live, limit (lowered number of slots), models, served, clock
-- ARGV: token, job_id, most (live jobs), model, job_hash, job_member (prefixes), waiting_prefix, strand_prefix,
--       strands_prefix, strand_of_prefix, share_prefix, matched_prefix (see shares.lua), tokens_prefix, quota_prefix (see turns.lua), patience
--       (seconds for which a lowered limit of tokens stays)
-- Returns how many were woken, -1 if another worker holds the job now.
if held_by_other(job, token) then return -1 end
-- One that was adopted from a later state of Redis has no slot yet. It holds one at the provider.
if leave_line(model, job_id) then
  redis.call('ZADD', live, score(now()), job_id)
  redis.call('HSET', tokens_prefix .. model, job_id, tonumber(redis.call('HGET', job, 'tokens') or '') or 1)
  redis.call('HSET', job, 'awaits', '')
end
if lowered_slots() then redis.call('SET', limit, lowered_slots() + 1, 'KEEPTTL') end
local quota = read_quota(quota_prefix .. model)
if limit_of(quota) and redis.call('ZSCORE', live, job_id) then
  local all = live_tokens(model)
  quota.taken = math.max(quota.taken or 0, all)
  if quota.learned and 2 * all > quota.learned and now() - (quota.lowered or 0) > tonumber(patience) then
    quota.learned = quota.learned + math.ceil(quota.learned / 8)
  end
  if quota.learned and quota.learned >= (quota.configured or math.huge) then quota.learned = nil end
  write_quota(quota_prefix .. model, quota)
end
return wake_next(clock, job_member)
