-- Makes an entity due that has a stage to come and no place on a clock.
-- KEYS: entity, clock (of its stage), other_clocks...
-- ARGV: member, stage (that it was seen with)
-- Returns 1, or 0 where it has moved on since, or has its place.
if redis.call('HGET', entity, 'stage') ~= stage then return 0 end
for _, other in ipairs(other_clocks) do
  if redis.call('ZSCORE', other, member) then return 0 end
end
return redis.call('ZADD', clock, 'NX', score(now()), member)
