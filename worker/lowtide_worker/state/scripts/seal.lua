-- Closes a bundle, so that no more batches are added to it, and its batches run. It stays open while jobs whose turn
-- comes first wait for a slot, and it has room: a job is cut when there is room for it at the provider.
-- KEYS: batch (the bundle), lane (its open bundle), live (sorted set of jobs), limit (lowered number of slots), models
--       (that jobs ask for), census
-- ARGV: token, slots (live jobs), model, waiting_prefix, strand_prefix (of a model's line: see shares.lua), most
--       (requests of a bundle), oldest (time; a bundle from before is closed), batches (key of the set of its batches), batch_prefix (of a batch's hash)
-- Returns the number of its requests, 0 if it stays open, -1 if another worker holds it now.
if held_by_other(batch, token) then return -1 end
local total, created, id, priority = unpack(redis.call('HMGET', batch, 'total', 'created', 'id', 'priority'))
if redis.call('GET', lane) == id then
  -- Only those whose turn comes before, for certain: of a higher priority, or older ones of its own tenant.
  local higher, older = string.format('(%.3f', -priority * 1e10), string.format('(%.3f', created)
  local strand = string.format('%d:%s', priority, tenant_of(batch))
  local function waits(other)
    return redis.call('ZCOUNT', waiting_prefix .. other, '-inf', higher) > 0
      or redis.call('ZCOUNT', strand_key(other, strand), '-inf', older) > 0
  end
  local stays = waits(model)
  -- A limit that is no number limits nothing, as for admit.lua.
  if redis.call('ZCARD', live) >= math.min(tonumber(slots), amount(redis.call('GET', limit)) or tonumber(slots)) then
    -- Slots are for jobs of all models, tokens are not.
    for _, other in ipairs(redis.call('ZRANGE', models, 0, -1)) do stays = stays or waits(other) end
  end
  if stays and tonumber(created) > tonumber(oldest) and tonumber(total) < tonumber(most) then return 0 end
  redis.call('DEL', lane)
end
redis.call('HSET', batch, 'lane', '')
for _, other in ipairs(redis.call('ZRANGE', batches, 0, -1)) do
  if redis.call('HGET', batch_prefix .. other, 'state') == 'pending' then
    redis.call('HSET', batch_prefix .. other, 'state', 'running')
    recount(batch_prefix .. other, census, 'running')
  end
end
return tonumber(total)
