"""The test's own knowledge of each batch, and the part of the store that it compares after each step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Expected:
    """A batch, with what the test knows of it."""

    id: str
    prompts: dict[str, str]
    handler: str | None
    key: str | None
    submitted: float
    recorded: bool = False
    deleted: bool = False
    """Its delete was accepted."""
    dropped: bool = False
    """A person dropped one of its deliveries."""
    forgotten: bool = False
    """The store was put back to a time before it, or to one before its files were deleted."""


@dataclass(frozen=True)
class Seen:
    """The contents of the store after a step."""

    counted: dict[str, int]
    """Of each batch that is there, how many requests are settled; -2 for one whose idempotency key is not its own."""
    parked: list[str]
    """Ids of the dead letters that are segments."""


LOOK = """
local found = {redis.call('ZRANGE', KEYS[1], 0, -1)}
for index = 2, #ARGV do
  local counted = redis.call('HMGET', ARGV[1] .. ARGV[index],
    'id', 'succeeded', 'failed', 'expired', 'cancelled', 'idempotency_key', 'state')
  local sum = -1
  if counted[1] then
    sum = 0
    for at = 2, 5 do sum = sum + tonumber(counted[at] or 0) end
    local key = counted[6]
    if key and counted[7] ~= 'deleting' then
      local owner = redis.call('GET', 'lowtide:idempotency:' .. key)
      if not owner or string.sub(owner, 1, #counted[1]) ~= counted[1] then sum = -2 end
    end
  end
  found[index] = sum
end
return found
"""
