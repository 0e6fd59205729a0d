-- Decides which final rows of a bundle's segment become results, as grant.lua does, and settles them in their own
-- batches too. A row whose own batch wants no result any more gets none; it counts as cancelled in the bundle.
-- KEYS: segment, settled (bitmap of the bundle), batch (the bundle), counted_rows, known_strangers (as in grant.lua)
-- ARGV: token, ordinals, final, first, strangers (as in grant.lua; ordinals are those in the bundle), batch_prefix (of a
--       batch's hash), settled_prefix (of a batch's bitmap), shares... (of each batch: id, ordinal of its first request
--       in the bundle, and the one behind its last)
-- Returns as grant.lua does.
if held_by_other(segment, token) or not exists(batch) then return false end
local before = answer_before()
if before then return before end
local runs = {}
for index = 1, #shares, 3 do
  local id, start = shares[index], tonumber(shares[index + 1])
  local run = {first = start, settled = settled_prefix .. id, wants = exists(batch_prefix .. id)}
  for ordinal = start, tonumber(shares[index + 2]) - 1 do runs[ordinal] = run end
end
local granted, dropped = {}, 0
for index = 1, final do
  local ordinal = ordinal_at(index)
  local run = runs[ordinal]
  granted[index] = '0'
  if redis.call('SETBIT', settled, ordinal, 1) == 0 then
    if run and run.wants and redis.call('SETBIT', run.settled, ordinal - run.first, 1) == 0 then
      granted[index] = '1'
    else
      dropped = dropped + 1
    end
  end
end
if dropped > 0 then redis.call('HINCRBY', batch, 'cancelled', dropped) end
return keep_answer(table.concat(granted), count_rows())
