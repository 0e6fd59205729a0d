-- Frees the slots and the tokens of jobs that have no record, and wakes those whose turn has come.
-- KEYS: live, limit (lowered number of slots), models, served, clock, tokens... (hashes with the live tokens of the models)
-- ARGV: most (live jobs), model (""; see turns.lua), job_hash, job_member (prefixes), waiting_prefix, strand_prefix,
--       strands_prefix, strand_of_prefix, share_prefix, matched_prefix (see shares.lua), tokens_prefix, quota_prefix (see turns.lua), jobs...
--       (their ids)
-- Returns how many had a slot or tokens.
local freed = 0
for _, id in ipairs(jobs) do
  -- One that was seen without a record may have one now: Redis is being restored.
  if not exists(job_hash .. id) then
    local had = redis.call('ZREM', live, id)
    for _, of_model in ipairs(tokens) do had = had + redis.call('HDEL', of_model, id) end
    freed = freed + math.min(1, had)
  end
end
if freed > 0 then wake_next(clock, job_member) end
return freed
