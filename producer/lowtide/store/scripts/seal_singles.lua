-- Closes a batch that gathers singles, so that no more are added to it.
-- KEYS: batch, gathering (the open batch of its lane), singles (its list)
-- ARGV: token
-- Returns the number of its singles, or -1 if another worker holds it now.
if held_by_other(batch, token) then return -1 end
if redis.call('GET', gathering) == redis.call('HGET', batch, 'id') then redis.call('DEL', gathering) end
return redis.call('LLEN', singles)
