-- Changes the most that a batch may cost, and makes the first thousand of its jobs due that wait for it.
-- KEYS: batch, clock (of create), waiting_for (members of jobs)
-- ARGV: max_cost (in nano-dollars), entity_prefix
-- Returns the batch's state, or nil where there is no batch. A batch without a `max_cost` stays without: "" then.
local state, before = unpack(redis.call('HMGET', batch, 'state', 'max_cost'))
if not state then return nil end
if not before or before == '' then return '' end
redis.call('HSET', batch, 'max_cost', max_cost)
local due = score(now())
for _, member in ipairs(redis.call('ZRANGE', waiting_for, 0, 999)) do
  wake(entity_prefix .. member, member, clock, due)
end
return state
