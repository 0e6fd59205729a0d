-- Makes an entity due that has a stage to come and no place on a clock.
-- KEYS: 1 entity's hash, 2 the clock of its stage, 3.. the other clocks
-- ARGV: 1 member, 2 the stage that it was seen with
-- Returns 1, or 0 where it has moved on since, or has its place.
if redis.call('HGET', KEYS[1], 'stage') ~= ARGV[2] then return 0 end
for index = 2, #KEYS do
  if redis.call('ZSCORE', KEYS[index], ARGV[1]) then return 0 end
end
local time = redis.call('TIME')
return redis.call('ZADD', KEYS[2], string.format('%.6f', time[1] + time[2] / 1e6), ARGV[1])
