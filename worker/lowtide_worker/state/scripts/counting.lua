-- Functions of the scripts that grant a segment's rows. Each row is counted as paid when it first comes in its job,
-- however often it comes, and whether it becomes a result or not.

local function ordinal_at(index) return (struct.unpack('<I4', ordinals, 4 * index - 3)) end

-- The answer of an earlier run: the strings `granted` and `counted`; nil if there is none.
local function answer_before()
  local granted, counted = unpack(redis.call('HMGET', segment, 'granted', 'firsts'))
  -- An older version has counted every row.
  if granted then return {granted, counted or string.rep('1', #ordinals / 4 + #strangers / 8)} end
end

-- Keeps the answer. Should the output get lost before the results are written, the bits must be taken back.
local function keep_answer(granted, counted)
  redis.call('HSET', segment, 'granted', granted, 'firsts', counted, 'ordinals', ordinals, 'strangers', strangers)
  return {granted, counted}
end

-- Counts the rows; returns a string of "1" (it comes for the first time) and "0", by ordinal and then by stranger.
local function count_rows()
  local news = {}
  for index = 1, #ordinals / 4 do
    news[#news + 1] = redis.call('SETBIT', counted_rows, ordinal_at(index) - first, 1) == 0 and '1' or '0'
  end
  for at = 1, #strangers, 8 do
    news[#news + 1] = redis.call('SADD', known_strangers, string.sub(strangers, at, at + 7)) == 1 and '1' or '0'
  end
  return table.concat(news)
end
