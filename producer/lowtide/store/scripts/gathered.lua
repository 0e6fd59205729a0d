-- Makes a batch of singles a batch like any other, now that its files are in the spool: it is cut into jobs, or added to
-- the bundle that is open for its lane. Its singles wait no more.
-- KEYS: batch, clock, batches (that were gathered), census, singles (its list), waiting_files (set of files that singles
--       refer to), lane (the open bundle)
-- ARGV: token, batch_id, member, stage (that cuts a batch), waiting_name (of the singles in the census), batch_prefix (of
--       a batch's hash), counted (name in the census), total, size (in bytes), tokens, output (tokens, estimated; "" for an unknown
--       number), lane_name ("" for jobs of its own), allowed ("": a bundle's fields have the deadline), bundle_id (for a new bundle), batch_member
--       (prefix), bundled, linger, enough, most, most_bytes, most_batches (of a bundle: see register.lua), requests, requests_prefix (unused: they are
--       in the spool),
--       bundle_fields (of a new bundle, names and values in MessagePack), files... (of its singles)
-- Returns whether its work may begin now, or -1 if another worker holds it now.
if held_by_other(batch, token) then return -1 end
local time = now()
-- A new token: the list is gone, and no worker may write files of it once more.
redis.call('HINCRBY', batch, 'token', 1)
redis.call('HSET', batch, 'total', total, 'bytes', size, 'tokens', tokens, 'output_tokens', output, 'busy', '0')
add(census, waiting_name, -redis.call('LLEN', singles))
redis.call('DEL', singles)
for _, file in ipairs(files) do redis.call('SREM', waiting_files, file) end
redis.call('ZADD', batches, score(time), batch_id)
local state = redis.call('HGET', batch, 'state')
count_in(batch, census, (string.gsub(counted, '|[^|]*', '|' .. state, 1)))
-- One that was cancelled meanwhile needs a job of its own, which ends it.
if lane_name == '' or state ~= 'pending' then
  redis.call('HSET', batch, 'stage', stage)
  redis.call('ZADD', clock, score(time), member)
  return 1
end
redis.call('HSET', batch, 'stage', '')
redis.call('ZREM', clock, member)
return join_bundle(time, time) ~= '' and 1 or 0
