"""What must be true of the machine's world: a little after each step, everything at rest."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from tests.chaos.machine_actors import Actor
from tests.chaos.machine_world import TASK, MachineWorld, Told

from lowtide import ResultStatus, keys
from lowtide.layout import BatchFiles
from lowtide.messages import Queue

_COUNTED = ("succeeded", "failed", "expired", "cancelled")
_SNAPSHOT = """
-- All that Redis has under a batch's id: keys with their content, members of the clocks with their times.
local found = {}
local names = redis.call('KEYS', 'lowtide:*' .. ARGV[1] .. '*')
table.sort(names)
for _, name in ipairs(names) do
  found[#found + 1] = name
  if redis.call('TYPE', name).ok == 'hash' then
    local fields = redis.call('HGETALL', name)
    local pairs = {}
    for at = 1, #fields, 2 do pairs[#pairs + 1] = fields[at] .. '=' .. fields[at + 1] end
    table.sort(pairs)
    found[#found + 1] = table.concat(pairs, ' ')
  else
    found[#found + 1] = redis.call('GET', name)
  end
end
for _, clock in ipairs(KEYS) do
  local members = redis.call('ZRANGE', clock, 0, -1, 'WITHSCORES')
  for at = 1, #members, 2 do
    if string.find(members[at], ARGV[1], 1, true) then
      found[#found + 1] = clock .. ' ' .. members[at] .. ' ' .. members[at + 1]
    end
  end
end
return found
"""


class Watch:
    """Sees whether a worker that was superseded still changes something."""

    def __init__(self, world: MachineWorld) -> None:
        self._world = world
        self._snapshot = world.redis.register_script(_SNAPSHOT)

    def before(self, actor: Actor) -> tuple[str, Any] | None:
        """What must not change while this actor goes on; None where it may change things."""
        held = actor.held
        if held is None or held.member == keys.SWEEP_MEMBER:
            return None
        token = self._world.redis.hget(keys.entity(held.member), "token")
        if token is not None and int(cast("bytes", token)) == held.token:
            return None
        return held.batch_id, self._seen(held.batch_id)

    def after(self, actor: Actor, before: tuple[str, Any] | None) -> None:
        """Raises where it changed."""
        if before is not None:
            batch_id, seen = before
            now = self._seen(batch_id)
            assert now == seen, f"{actor.name} is superseded, and at {actor.at} changed {seen} to {now}"

    def _seen(self, batch_id: str) -> Any:
        found = self._snapshot(keys=[keys.clock(queue) for queue in Queue], args=[batch_id])
        return [part.decode(errors="replace") for part in found], self.results(batch_id)

    def results(self, batch_id: str) -> dict[str, bytes]:
        """The stored results of a batch, where it has any that count."""
        if not self._world.known(batch_id):
            return {}
        spool = self._world.spool
        return {name: spool.read(name) for name in spool.names(BatchFiles(batch_id).results)}


def check_step(world: MachineWorld) -> None:
    """What is looked at after each step."""
    assert not world.provider.wrongs, world.provider.wrongs
    for told in world.told.values():
        fields = world.known(told.id)
        if not fields or told.forgotten:
            continue
        counted = sum(int(fields.get(name, 0)) for name in _COUNTED)
        assert counted <= len(told.prompts), f"{told.id}: {counted} of {len(told.prompts)} are settled"


def check_rest(world: MachineWorld) -> None:
    """Everything, when nothing is left to be done."""
    check_step(world)
    for told in world.told.values():
        if world.known(told.id):
            _check_results(world, told)
        else:
            assert not told.recorded or world.forgets(told), f"{told.id} is gone"
    _check_handler(world)
    _check_left_overs(world)


def _check_results(world: MachineWorld, told: Told) -> None:
    batch = world.queue.get(told.id)
    status, results = batch.status(), list(batch.results())
    lines = Counter(result.key for result in results)
    assert status.finished, f"{told.id} is at rest and not finished: {status}"
    assert lines.keys() == told.prompts.keys(), f"{told.id}: lost {told.prompts.keys() - lines.keys()}"
    assert set(lines.values()) == {1}, f"{told.id}: more than one result: {lines}"
    stored = Counter(str(result.status) for result in results)
    counted = {name: getattr(status, name) for name in _COUNTED}
    assert counted == {name: stored[name] for name in _COUNTED}, f"{told.id}: counted {counted}, stored {stored}"
    assert sum(counted.values()) == status.total == len(told.prompts), f"{told.id}: {status}"
    for result in results:
        if result.status is ResultStatus.SUCCEEDED:
            assert result.text == told.prompts[result.key], f"{told.id}: {result}"
        assert (result.error is None) is (result.status is ResultStatus.SUCCEEDED), f"{told.id}: {result}"
    assert (status.undelivered, status.parked) == (0, 0), f"{told.id}: {status}"
    if told.handler is not None and not told.dropped:
        taken = world.delivered(told)
        assert taken == told.prompts.keys(), f"{told.id}: never delivered {told.prompts.keys() - taken}"


def _check_handler(world: MachineWorld) -> None:
    files = list(world.results_of.values())
    assert len(files) == len(set(files)), f"the same results under two delivery ids: {world.results_of}"


def _check_left_overs(world: MachineWorld) -> None:
    client = world.redis
    there = {told.id for told in world.told.values() if world.known(told.id)}
    on_clock = {member for queue in Queue for member in client.zrange(keys.clock(queue), 0, -1)}
    assert on_clock == {b"sweep"} | {keys.batch_member(one).encode() for one in there}, f"on the clock: {on_clock}"
    for name in (keys.live("gemini"), keys.waiting("gemini"), keys.in_hand(TASK), keys.queued(TASK), keys.PARKED):
        assert not (left := client.zrange(name, 0, -1)), f"{name}: {left}"
    assert {name.decode() for name in client.zrange(keys.BATCHES, 0, -1)} == there
    owned = [key.decode() for key in client.keys("lowtide:*") if not key.decode().startswith(_PERMANENT)]
    for key in owned:
        kind, owner = key.split(":")[1:3]
        assert kind in ("batch", "settled", "job", "rows", "idempotency"), f"left: {key}"
        if kind == "idempotency":
            owner = cast("bytes", client.get(key)).decode().partition(" ")[0]
        assert owner.partition("-")[0] in there, f"left: {key}"
    assert not (left := world.provider.left()), f"at the provider: {left} of {world.provider.all}"
    folders = set(world.spool.folders("batches"))
    assert folders == there, f"in the spool: {folders}, in the store: {there}"
    for batch_id in there:
        assert not world.spool.names(f"batches/{batch_id}/jobs"), f"working files of {batch_id}"


_PERMANENT = (
    "lowtide:batches", "lowtide:clock:", "lowtide:ticker:", "lowtide:limit:", "lowtide:sweep",
    "lowtide:dead-letters", "lowtide:stream:", "lowtide:counters",
)  # fmt: skip
