-- Gives up a segment whose bytes are gone, and has its job find them again.
-- KEYS: segment, job, settled (bitmap), clock (of the segment and of collect), job_clock (that the job waits
--       on), census, counted_rows (bitmap of the job), known_strangers (set of the job)
-- ARGV: member (of the segment), token, job_member, stage (that brings the bytes again; "" where settle itself does),
--       first (ordinal of the job's first request), settled_prefix (of a batch's bitmap), shares... (of each batch of a
--       bundle: as in grant_bundled.lua; none for another batch)
-- Returns 1, or 0 if another worker holds the segment now.
if held_by_other(segment, token) then return 0 end
local granted, ordinals, number, firsts, strangers =
  unpack(redis.call('HMGET', segment, 'granted', 'ordinals', 'number', 'firsts', 'strangers'))
-- Rows that were granted to this segment are not stored, and those that it was to count are not counted: both are left
-- to another.
local taken_back = false
if granted and ordinals then
  for index = 1, #granted do
    if string.sub(granted, index, index) == '1' then
      local ordinal = (struct.unpack('<I4', ordinals, 4 * index - 3))
      redis.call('SETBIT', settled, ordinal, 0)
      for at = 1, #shares, 3 do
        local start = tonumber(shares[at + 1])
        if ordinal >= start and ordinal < tonumber(shares[at + 2]) then
          redis.call('SETBIT', settled_prefix .. shares[at], ordinal - start, 0)
        end
      end
      taken_back = true
    end
  end
end
for index = 1, firsts and #ordinals / 4 or 0 do
  if string.sub(firsts, index, index) == '1' then
    redis.call('SETBIT', counted_rows, struct.unpack('<I4', ordinals, 4 * index - 3) - first, 0)
    taken_back = true
  end
end
for at = 1, #(strangers or ''), 8 do
  local index = #ordinals / 4 + (at + 7) / 8
  if string.sub(firsts, index, index) == '1' then
    redis.call('SREM', known_strangers, string.sub(strangers, at, at + 7))
    taken_back = true
  end
end
remove(segment, census)
redis.call('ZREM', clock, member)
local recollected, dropped, collected = unpack(redis.call('HMGET', job, 'recollected', 'dropped', 'collected'))
-- A file of results that a dead worker may have left under this number is removed before the batch ends.
redis.call('HSET', job, 'dropped', (dropped and dropped .. ' ' or '') .. number)
local left = redis.call('HINCRBY', job, 'segments_left', -1)
local due = score(now())
-- What was cut before the job began to be collected again is found again by that, unless it met bits just taken back.
if stage ~= '' and (taken_back or tonumber(number) >= tonumber(recollected or 0)) then
  -- A new token: a worker that collects now continues behind the lost bytes. It starts at the first byte again; while
  -- `collected` is not empty, no segment that ends wakes settle.
  redis.call('HINCRBY', job, 'token', 1)
  redis.call('HSET', job, 'stage', stage, 'busy', '0')
  collect_again(job)
  redis.call('ZREM', job_clock, job_member)
  redis.call('ZADD', clock, due, job_member)
elseif left == 0 and (collected or '') == '' then
  redis.call('HINCRBY', job, 'token', 1)
  redis.call('ZADD', job_clock, 'XX', due, job_member)
end
return 1
