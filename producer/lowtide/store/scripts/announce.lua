-- Notes the work that a worker can do, in place of its former note. Notes of workers that were silent for long are
-- removed.
-- KEYS: serving
-- ARGV: announcement, former ("" where there is none), kept (seconds a silent worker's note is kept)
local time = now()
redis.call('ZREMRANGEBYSCORE', serving, '-inf', score(time - kept))
redis.call('ZREM', serving, former)
redis.call('ZADD', serving, score(time), announcement)
