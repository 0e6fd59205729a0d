-- Spares a bundle the requests of its batches that have ended, are being cancelled, or are deleted: they are settled
-- in the bundle, and count as cancelled there. A bundle of which no batch is left is cancelled as a whole.
-- KEYS: entity (the bundle, or a job of it), batch (the bundle), settled (its bitmap), batches (sorted set)
-- ARGV: token, batch_prefix (of a batch's hash)
-- Returns how many requests were spared, or -1 if another worker holds the entity now.
if held_by_other(entity, token) then return -1 end
local spared, wanted = 0, 0
local placed = redis.call('ZRANGE', batches, 0, -1, 'WITHSCORES')
local total = tonumber(redis.call('HGET', batch, 'total'))
for index = 1, #placed, 2 do
  local state = redis.call('HGET', batch_prefix .. placed[index], 'state')
  if state == 'pending' or state == 'running' then
    wanted = wanted + 1
  else
    -- The set may be damaged.
    for ordinal = math.max(0, math.ceil(placed[index + 1])), math.min(placed[index + 3] or total, total) - 1 do
      if redis.call('SETBIT', settled, ordinal, 1) == 0 then spared = spared + 1 end
    end
  end
end
redis.call('HINCRBY', batch, 'cancelled', spared)
if wanted == 0 then redis.call('HSET', batch, 'cancel', 1) end
return spared
