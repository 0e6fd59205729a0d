-- Adds to counters and to histograms that a process has measured.
-- KEYS: counters, latencies
-- ARGV: totals... (counter, amount pairs), times... (the same of the buckets and sums of histograms)
add_all(counters, totals)
for index = 1, #times, 2 do redis.pcall('HINCRBY', latencies, times[index], times[index + 1]) end
