-- Decides which final rows of a segment become results: each request's first one, whoever asks first.
-- KEYS: 1 segment hash, 2 bitmap of settled requests
-- ARGV: 1 token, 2 ordinals, in the order of the rows, 4 bytes each, little-endian
-- Returns a string of "1" (granted) and "0" (settled before), one per ordinal, the same whenever the segment
-- runs again; or nil if somebody else holds the segment now.
local found = redis.call('HMGET', KEYS[1], 'token', 'granted')
if found[1] ~= ARGV[1] then return false end
if found[2] then return found[2] end
local granted = {}
local position, ordinal = 1, nil
for index = 1, #ARGV[2] / 4 do
  ordinal, position = struct.unpack('<I4', ARGV[2], position)
  granted[index] = redis.call('SETBIT', KEYS[2], ordinal, 1) == 0 and '1' or '0'
end
local answer = table.concat(granted)
redis.call('HSET', KEYS[1], 'granted', answer)
return answer
