-- Decides which final rows of a segment become results: the first one of each request, in any segment. Decides too which
-- of all its rows are counted as paid: those that come for the first time in their job.
-- KEYS: segment, settled (bitmap), batch, counted_rows (bitmap of the job), known_strangers (set of the job)
-- ARGV: token, ordinals (of the final rows, in their order, then of those whose requests run again; 4 bytes each,
--       little-endian), final (number of final rows), consecutive ("1" if the rows are all final and in order), first
--       (ordinal of the job's first request), strangers (digests of rows that belong to no request, 8 bytes each)
-- Returns two strings of "1" and "0", the same whenever the segment runs again: which final rows are granted, and which
-- rows are counted, those of strangers last; or nil if another worker holds the segment now, or its batch is deleted.
if held_by_other(segment, token) or not exists(batch) then return false end
local before = answer_before()
if before then return before end

-- Whether no bit of a range is set.
local function is_clear(bitmap, at, last) return redis.call('BITCOUNT', bitmap, at, last, 'BIT') == 0 end

-- Sets the bits of a range, whole bytes at a time.
local function fill(bitmap, at, last)
  while at <= last and at % 8 ~= 0 do
    redis.call('SETBIT', bitmap, at, 1)
    at = at + 1
  end
  local bytes = math.floor((last - at + 1) / 8)
  if bytes > 0 then redis.call('SETRANGE', bitmap, at / 8, string.rep('\255', bytes)) end
  for rest = at + 8 * bytes, last do redis.call('SETBIT', bitmap, rest, 1) end
end

if consecutive == '1' and strangers == '' then
  -- The usual case: a segment in order, whose rows all come for the first time.
  local at, last = ordinal_at(1), ordinal_at(#ordinals / 4)
  if is_clear(settled, at, last) and is_clear(counted_rows, at - first, last - first) then
    fill(settled, at, last)
    fill(counted_rows, at - first, last - first)
    local all = string.rep('1', #ordinals / 4)
    return keep_answer(all, all)
  end
end
local granted = {}
for index = 1, final do
  granted[index] = redis.call('SETBIT', settled, ordinal_at(index), 1) == 0 and '1' or '0'
end
return keep_answer(table.concat(granted), count_rows())
