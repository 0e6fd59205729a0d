-- Reads one field of any number of records in one call.
-- KEYS: records...
-- ARGV: field
-- Returns a value for each: "" where there is no such record, or the key holds something else.
local found = {}
for index, record in ipairs(records) do
  local value = redis.pcall('HGET', record, field)
  found[index] = type(value) == 'string' and value or ''
end
return found
