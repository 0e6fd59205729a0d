-- Decides which final rows of a segment become results: each request's first one, the first that asks.
-- KEYS: segment, settled (bitmap), batch
-- ARGV: token, ordinals (in the order of the rows, 4 bytes each, little-endian), consecutive ("1" if they are)
-- Returns a string of "1" (granted) and "0" (settled before), one per ordinal, the same whenever the segment
-- runs again; or nil if another worker holds the segment now, or its batch is deleted.
if held_by_other(segment, token) or not exists(batch) then return false end
local before = redis.call('HGET', segment, 'granted')
if before then return before end

local function ordinal_at(index) return (struct.unpack('<I4', ordinals, 4 * index - 3)) end
local count = #ordinals / 4
local answer

if consecutive == '1' and redis.call('BITCOUNT', settled, ordinal_at(1), ordinal_at(count), 'BIT') == 0 then
  -- The usual case, a segment in order whose requests are all unsettled: whole bytes at a time.
  local at, last = ordinal_at(1), ordinal_at(count)
  while at <= last and at % 8 ~= 0 do
    redis.call('SETBIT', settled, at, 1)
    at = at + 1
  end
  local bytes = math.floor((last - at + 1) / 8)
  if bytes > 0 then redis.call('SETRANGE', settled, at / 8, string.rep('\255', bytes)) end
  for rest = at + 8 * bytes, last do redis.call('SETBIT', settled, rest, 1) end
  answer = string.rep('1', count)
else
  local granted = {}
  for index = 1, count do
    granted[index] = redis.call('SETBIT', settled, ordinal_at(index), 1) == 0 and '1' or '0'
  end
  answer = table.concat(granted)
end
-- The ordinals too: should the output get lost before the results are written, the bits must be taken back.
redis.call('HSET', segment, 'granted', answer, 'ordinals', ordinals)
return answer
