-- Marks a finished batch for deletion, here and at the provider, in the lower turn.
-- KEYS: batch, clock, census
-- ARGV: member, stage (that deletes), finished... (states that count as finished)
-- Returns the state from before, or nil where there is no batch. Nothing changes unless it is finished.
local state = redis.call('HGET', batch, 'state')
for _, ended in ipairs(finished) do
  if state == ended then
    redis.call('HSET', batch, 'state', 'deleting', 'stage', stage, 'busy', '0')
    recount(batch, census, 'deleting')
    -- A new token: a worker that has just decided to keep it longer must not put it off.
    redis.call('HINCRBY', batch, 'token', 1)
    redis.call('ZADD', clock, lower_turn(), member)
  end
end
return state
