-- Gives up a segment whose bytes are gone, and has its job find them again.
-- KEYS: 1 segment hash, 2 job hash, 3 bitmap of settled requests, 4 clock of the segment and of collect,
--       5 clock the job waits on
-- ARGV: 1 segment member, 2 token, 3 job member, 4 stage that brings the bytes again ("" where settle itself does)
-- Returns 1, or 0 if somebody else holds the segment now.
local found = redis.call('HMGET', KEYS[1], 'token', 'granted', 'ordinals', 'number')
if found[1] ~= ARGV[2] then return 0 end
-- What was granted to this segment is not stored: it is to be granted to another.
local taken_back = false
if found[2] and found[3] then
  for index = 1, #found[2] do
    if string.sub(found[2], index, index) == '1' then
      redis.call('SETBIT', KEYS[3], (struct.unpack('<I4', found[3], 4 * index - 3)), 0)
      taken_back = true
    end
  end
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[4], ARGV[1])
local job = redis.call('HMGET', KEYS[2], 'stage', 'segments', 'recollected', 'dropped', 'collected')
-- A file of results that a dead worker may have left under this number is removed before the batch ends.
redis.call('HSET', KEYS[2], 'dropped', (job[4] and job[4] .. ' ' or '') .. found[4])
local left = redis.call('HINCRBY', KEYS[2], 'segments_left', -1)
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
-- What was cut before the job began to be collected again is found again by that, unless it met bits just taken back.
if ARGV[4] ~= '' and (taken_back or tonumber(found[4]) >= tonumber(job[3] or 0)) then
  -- A new token: whoever collects at this moment goes on behind what is gone. From the first byte again, and while
  -- `collected` is not empty, no segment that ends wakes settle.
  redis.call('HINCRBY', KEYS[2], 'token', 1)
  redis.call('HSET', KEYS[2], 'stage', ARGV[4], 'busy', '0', 'collected', '0', 'recollected', job[2])
  redis.call('ZREM', KEYS[5], ARGV[3])
  redis.call('ZADD', KEYS[4], now, ARGV[3])
elseif left == 0 and (job[5] or '') == '' then
  redis.call('HINCRBY', KEYS[2], 'token', 1)
  redis.call('ZADD', KEYS[5], 'XX', now, ARGV[3])
end
return 1
