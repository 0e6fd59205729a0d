-- Records singles of one lane: puts each into the batch that is open for the lane, where it waits to be gathered. A
-- single whose key has a ticket, or whose request was asked before and may be reused, is not recorded again.
-- KEYS: gathering (the open batch of the lane), clock, census, files (set of files that singles refer to)
-- ARGV: batch_id, salt (of a new batch), batch_prefix (of a batch's hash), batch_member (prefix), singles_prefix (of a
--       batch's list), waiting_name (of the singles in the census), most (that may wait), linger (seconds until a new
--       batch is due), enough, enough_bytes, enough_tokens (of a batch that is due at once), allowed (seconds until the
--       deadline; "" where the fields have it, or the setting decides), key_prefix, key_seconds, asked_prefix, reuse
--       (seconds; "" for none), asked_seconds (that a request is remembered), trace (the span of this call, as traceparent;
--       "" for none), traces_chars (of the spans that a batch keeps), fields (of a new batch: their names
--       and values as a list in MessagePack), singles (a list in MessagePack; of each: the single, its bytes, its tokens,
--       the digest of its key or "", the fingerprint of its content, the digest by which it is reused or "", its file or "")
-- Returns {"full", number that wait} with nothing recorded, or {"added", batch that is due or "", ticket, fingerprint,
-- ...}: the fingerprint is "" for a single that is recorded now, and that of the earlier one for another.
local time = now()
local function ticket_of(id, secret, ordinal)
  return id .. '.' .. ordinal .. '.' .. string.sub(redis.sha1hex(secret .. ordinal), 1, 16)
end
local function batch_of(ticket) return batch_prefix .. string.match(ticket, '^[^.]*') end
-- The ticket of a key and the fingerprint of its content, while its result is kept. A batch that is being deleted, or has
-- lost its requests, gives up its keys.
local function of_key(digest)
  local ticket, fingerprint = string.match(redis.call('GET', key_prefix .. digest) or '', '^(%S+) (%S+)$')
  if not ticket then return nil end
  local state, error = unpack(redis.call('HMGET', batch_of(ticket), 'state', 'error'))
  local is_lost = state == 'failed' and decoded(error).reason == 'REQUESTS_LOST'
  if state and state ~= 'deleting' and not is_lost then return ticket, fingerprint end
end
-- The ticket of the same request, if it is in flight, or was answered recently. Which requests of a batch have ended
-- without an answer is not known here, so a batch with one that has answers none.
local function of_request(digest)
  local ticket = redis.call('GET', asked_prefix .. digest)
  if not ticket then return nil end
  local state, finished, failed, expired, cancelled =
    unpack(redis.call('HMGET', batch_of(ticket), 'state', 'finished', 'failed', 'expired', 'cancelled'))
  for _, count in ipairs({failed or '0', expired or '0', cancelled or '0'}) do
    if finite(count) ~= 0 then return nil end
  end
  if state == 'completed' and (finite(finished) or 0) >= time - reuse or runs(state) then return ticket end
end
-- What stands for a single: ticket, fingerprint, and whether its own key says so; nil for one that is new.
local function earlier(key, fingerprint, asked)
  local ticket, before
  if key ~= '' then ticket, before = of_key(key) end
  if ticket then return ticket, before, true end
  if asked ~= '' then ticket = of_request(asked) end
  return ticket, ticket and fingerprint, false
end

singles = cmsgpack.unpack(singles)
local waiting = finite(redis.call('HGET', census, waiting_name)) or 0
if waiting + #singles > tonumber(most) then
  local new = 0
  for _, single in ipairs(singles) do
    if not earlier(single[4], single[5], single[6]) then new = new + 1 end
  end
  if new > 0 and waiting + new > tonumber(most) then return {'full', waiting} end
end

-- A server that has lost its last writes, as by a power cut or a failover, would give out their tickets again. It is
-- another run of a server, and adds nothing to a batch that an earlier run has opened.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local batch, secret = redis.call('GET', gathering), nil
if batch then
  local state, of
  state, secret, of = unpack(redis.call('HMGET', batch_prefix .. batch, 'state', 'salt', 'run'))
  if state ~= 'pending' or not secret or of ~= run then batch = nil end
end
local added, tokens, bytes, found = 0, 0, 0, {'added', ''}
for _, one in ipairs(singles) do
  local single, size, cost, key, fingerprint, asked, file = unpack(one)
  local ticket, before, keyed = earlier(key, fingerprint, asked)
  if not ticket then
    if not batch then
      batch, secret = batch_id, salt
      redis.call('HSET', batch_prefix .. batch, 'id', batch, 'created', score(time), 'salt', salt, 'run', run,
        unpack(cmsgpack.unpack(fields)))
      if allowed ~= '' then redis.call('HSET', batch_prefix .. batch, 'deadline', score(time + allowed)) end
      redis.call('SET', gathering, batch)
      redis.call('ZADD', clock, score(time + linger), batch_member .. batch)
    end
    ticket = ticket_of(batch, secret, redis.call('RPUSH', singles_prefix .. batch, single) - 1)
    if asked ~= '' then redis.call('SET', asked_prefix .. asked, ticket, 'EX', asked_seconds) end
    if file ~= '' then redis.call('SADD', files, file) end
    added, tokens, bytes = added + 1, tokens + cost, bytes + size
  else
    -- WAIT and WAITAOF are about what their own connection wrote, so it is written again: the single may have been
    -- recorded over another connection, and not be safe yet.
    redis.call('HSET', batch_of(ticket), 'id', string.match(ticket, '^[^.]*'))
  end
  if key ~= '' and not keyed then
    redis.call('SET', key_prefix .. key, ticket .. ' ' .. fingerprint, 'EX', key_seconds)
  end
  found[#found + 1] = ticket
  found[#found + 1] = before or ''
end
if added == 0 then return found end
if trace ~= '' then
  local traces = redis.call('HGET', batch_prefix .. batch, 'traces')
  if not traces then redis.call('HSET', batch_prefix .. batch, 'traces', trace)
  elseif #traces + #trace < tonumber(traces_chars) then
    redis.call('HSET', batch_prefix .. batch, 'traces', traces .. ' ' .. trace)
  end
end
add(census, waiting_name, added)
local total = redis.call('HINCRBY', batch_prefix .. batch, 'total', added)
local all_bytes = redis.call('HINCRBY', batch_prefix .. batch, 'bytes', bytes)
local all_tokens = redis.call('HINCRBY', batch_prefix .. batch, 'tokens', tokens)
if total >= tonumber(enough) or all_bytes >= tonumber(enough_bytes) or all_tokens >= tonumber(enough_tokens) then
  redis.call('DEL', gathering)
  wake(batch_prefix .. batch, batch_member .. batch, clock, score(time))
  found[2] = batch
end
return found
