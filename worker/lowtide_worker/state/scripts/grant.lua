-- Decides which final rows of a segment become results: each request's first one, whoever asks first.
-- KEYS: 1 segment hash, 2 bitmap of settled requests, 3 batch hash
-- ARGV: 1 token, 2 ordinals, in the order of the rows, 4 bytes each, little-endian, 3 "1" if they are consecutive
-- Returns a string of "1" (granted) and "0" (settled before), one per ordinal, the same whenever the segment
-- runs again; or nil if somebody else holds the segment now, or its batch is deleted.
local found = redis.call('HMGET', KEYS[1], 'token', 'granted')
if found[1] ~= ARGV[1] or redis.call('EXISTS', KEYS[3]) == 0 then return false end
if found[2] then return found[2] end

local function ordinal_at(index) return (struct.unpack('<I4', ARGV[2], 4 * index - 3)) end
local count = #ARGV[2] / 4
local answer

if ARGV[3] == '1' and redis.call('BITCOUNT', KEYS[2], ordinal_at(1), ordinal_at(count), 'BIT') == 0 then
  -- The usual case, a segment in order whose requests nobody has settled: whole bytes at a time.
  local at, last = ordinal_at(1), ordinal_at(count)
  while at <= last and at % 8 ~= 0 do
    redis.call('SETBIT', KEYS[2], at, 1)
    at = at + 1
  end
  local bytes = math.floor((last - at + 1) / 8)
  if bytes > 0 then redis.call('SETRANGE', KEYS[2], at / 8, string.rep('\255', bytes)) end
  for rest = at + 8 * bytes, last do redis.call('SETBIT', KEYS[2], rest, 1) end
  answer = string.rep('1', count)
else
  local granted = {}
  for index = 1, count do
    granted[index] = redis.call('SETBIT', KEYS[2], ordinal_at(index), 1) == 0 and '1' or '0'
  end
  answer = table.concat(granted)
end
-- The ordinals too: should the output get lost before the results are written, the bits must be taken back.
redis.call('HSET', KEYS[1], 'granted', answer, 'ordinals', ARGV[2])
return answer
