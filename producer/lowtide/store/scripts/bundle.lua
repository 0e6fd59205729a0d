-- Functions of the scripts that add a batch to the open bundle of its lane. They use the names of these scripts.

-- Batches come in quick succession where a bundle has so many within `linger`. When no more come for this part of
-- `linger`, none is waited for.
local MANY, PART = 10, 0.25

-- Adds the batch to the bundle that is open for its lane, or to a new one. Returns the bundle if its work may begin now,
-- else "". Such a bundle is due at the time `due` at the latest, for which it needs no message.
local function join_bundle(time, due)
  local total, size = tonumber(total), tonumber(size)
  local bundle = redis.call('GET', lane)
  if bundle then
    local open, requested, bytes, members =
      unpack(redis.call('HMGET', batch_prefix .. bundle, 'lane', 'total', 'bytes', 'bundled'))
    requested, bytes, members = finite(requested), finite(bytes), finite(members)
    if open ~= lane_name or not requested or not bytes or not members then
      -- Another one, or damaged: its work says so.
      bundle = nil
    elseif requested + total > tonumber(most) or bytes + size > tonumber(most_bytes)
      or members >= tonumber(most_batches) then
      -- There is no room in it. It is not open any more, so it can be cut into jobs.
      wake(batch_prefix .. bundle, batch_member .. bundle, clock, score(time))
      bundle = nil
    end
  end
  if not bundle then
    bundle = bundle_id
    redis.call('HSET', batch_prefix .. bundle, 'id', bundle, 'created', score(time), 'lane', lane_name,
      'lingers_until', score(time + linger), unpack(cmsgpack.unpack(bundle_fields)))
    count_in(batch_prefix .. bundle, census, 'bundles|pending')
    if allowed ~= '' then redis.call('HSET', batch_prefix .. bundle, 'deadline', score(time + allowed)) end
    redis.call('SET', lane, bundle)
    redis.call('ZADD', clock, score(time + linger), batch_member .. bundle)
  end
  local first = redis.call('HINCRBY', batch_prefix .. bundle, 'total', total) - total
  redis.call('HINCRBY', batch_prefix .. bundle, 'bytes', size)
  redis.call('HINCRBY', batch_prefix .. bundle, 'tokens', tokens)
  if output ~= '' then redis.call('HINCRBY', batch_prefix .. bundle, 'output_tokens', output) end
  local batches = redis.call('HINCRBY', batch_prefix .. bundle, 'bundled', 1)
  redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_left', 1)
  redis.call('HINCRBY', batch_prefix .. bundle, 'bundled_running', 1)
  redis.call('HSET', batch, 'bundle', bundle)
  redis.call('ZADD', bundled .. bundle, first, batch_id)
  if requests ~= '' then redis.call('HSET', requests_prefix .. bundle, batch_id, requests) end
  -- Its work may have begun already.
  if first >= tonumber(enough) then return '' end
  if first + total >= tonumber(enough) then
    local due_at = tonumber(redis.call('ZSCORE', clock, batch_member .. bundle) or 0)
    if due_at > due then wake(batch_prefix .. bundle, batch_member .. bundle, clock, score(due)) end
    return bundle
  end
  local latest, busy = unpack(redis.call('HMGET', batch_prefix .. bundle, 'lingers_until', 'busy'))
  if batches >= MANY and busy ~= '1' and time < (finite(latest) or 0) then
    redis.call('ZADD', clock, 'XX', score(math.min(latest, time + PART * linger)), batch_member .. bundle)
  end
  return ''
end
