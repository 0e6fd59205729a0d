-- Drops segments that have no record from the set of undelivered ones: handlers of an older version end a delivery
-- without it. The script that makes a segment undelivered adds it to both at once, so one without a record is over.
-- KEYS: undelivered (sorted set)
-- ARGV: members... (of segments)
-- Returns how many were dropped.
local dropped = 0
for _, member in ipairs(members) do
  if not exists(KEY .. member) then dropped = dropped + redis.call('ZREM', undelivered, member) end
end
return dropped
