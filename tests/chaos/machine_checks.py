"""Checks of the simulation: a little after each step, everything at rest."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

from tests.chaos.invariants import is_of_small_jobs
from tests.chaos.machine_actors import Actor
from tests.chaos.machine_simulation import TASK, Simulation
from tests.chaos.machine_state import Expected, Seen

from lowtide import ResultStatus
from lowtide.protocol import BatchFiles, Queue, keys
from lowtide.states import BatchState

_COUNTED = ("succeeded", "failed", "expired", "cancelled")
_SNAPSHOT = """
-- All that Redis has under a batch's id: keys with their content, members of the clocks with their times.
local found = {}
local names = redis.call('KEYS', 'lowtide:*' .. ARGV[1] .. '*')
table.sort(names)
for _, name in ipairs(names) do
  found[#found + 1] = name
  local kind = redis.call('TYPE', name).ok
  if kind == 'hash' then
    local fields = redis.call('HGETALL', name)
    local pairs = {}
    for at = 1, #fields, 2 do
      -- Except text for people: any delivery that succeeds may remove the problem.
      if not string.find(fields[at], '^delivery_') then pairs[#pairs + 1] = fields[at] .. '=' .. fields[at + 1] end
    end
    table.sort(pairs)
    found[#found + 1] = table.concat(pairs, ' ')
  elseif kind == 'set' then
    local members = redis.call('SMEMBERS', name)
    table.sort(members)
    found[#found + 1] = table.concat(members, ' ')
  else
    found[#found + 1] = redis.call('GET', name)
  end
end
for _, clock in ipairs(KEYS) do
  local members = redis.call('ZRANGE', clock, 0, -1, 'WITHSCORES')
  for at = 1, #members, 2 do
    if string.find(members[at], ARGV[1], 1, true) then
      found[#found + 1] = clock .. ' ' .. members[at]
      found[#found + 1] = members[at + 1]
    end
  end
end
return found
"""


class Watch:
    """Sees whether a worker that was superseded still changes something of its batch."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._snapshot = simulation.redis.register_script(_SNAPSHOT)

    def before(self, actor: Actor) -> Before | None:
        """Things that must not change while this actor goes on; None where it may change things."""
        held = actor.held
        if held is None or held.member == keys.SWEEP_MEMBER:
            return None
        token = cast("bytes | None", self._simulation.redis.hget(keys.entity(held.member), "token"))
        if token is not None and int(token) == held.token:
            return None
        state = self._simulation.known(held.batch_id).get("state")
        if state == BatchState.DELETING:
            # All of it goes, and it does not matter who does it.
            return None
        finished = state is not None and BatchState(state).finished
        return Before(held.batch_id, finished, self._state(held.batch_id), self._results(held.batch_id))

    def after(self, actor: Actor, before: Before | None) -> None:
        """Raises where it changed."""
        if before is None:
            return
        state, results = self._state(before.batch_id), self._results(before.batch_id)
        changed = [] if actor.claimed else sorted(before.state.items() ^ state.items())
        assert not changed, f"{actor.name} is superseded, and before {actor.at} changed {changed}"
        # It may be the first to write a file that another one will write just so.
        new = set() if before.finished else results.items() - before.results.items()
        changed = sorted((results.items() - new) ^ before.results.items())
        assert not changed, f"{actor.name} is superseded, and before {actor.at} wrote {changed}"

    def _state(self, batch_id: str) -> dict[str, bytes]:
        found = self._snapshot(keys=[keys.clock(queue) for queue in Queue], args=[batch_id])
        return {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}

    def _results(self, batch_id: str) -> dict[str, bytes]:
        spool = self._simulation.spool
        if not self._simulation.known(batch_id):
            # A ghost of a deleted batch is left to the sweep.
            return {}
        return {name: spool.read(name) for name in spool.names(BatchFiles(batch_id).results)}


class Before(NamedTuple):
    """A batch before a superseded worker went on."""

    batch_id: str
    finished: bool
    state: dict[str, bytes]
    results: dict[str, bytes]


def check_step(simulation: Simulation, seen: Seen) -> None:
    """The checks after each step."""
    assert not simulation.provider.wrongs, simulation.provider.wrongs
    for batch_id, counted in seen.counted.items():
        if simulation.expected[batch_id].forgotten:
            continue
        total = len(simulation.expected[batch_id].prompts)
        assert counted != -2, f"{batch_id} lost its idempotency key"
        assert counted <= total, f"{batch_id}: {counted} of {total} are settled"


def check_rest(simulation: Simulation, *, late: bool) -> None:
    """Everything, when nothing is left to be done. `late`: superseded workers went on, and may have left files."""
    for expected in simulation.expected.values():
        if not simulation.known(expected.id):
            assert not expected.recorded or simulation.forgets(expected), f"{expected.id} is gone"
        elif not expected.forgotten:
            _check_results(simulation, expected)
    _check_handler(simulation)
    _check_left_overs(simulation, late=late)


def _check_results(simulation: Simulation, expected: Expected) -> None:
    batch = simulation.queue.get(expected.id)
    status, results = batch.status(), list(batch.results())
    lines = Counter(result.key for result in results)
    assert status.finished, f"{expected.id} is at rest and not finished: {status}"
    assert lines.keys() == expected.prompts.keys(), f"{expected.id}: lost {expected.prompts.keys() - lines.keys()}"
    assert set(lines.values()) == {1}, f"{expected.id}: more than one result: {lines}"
    stored = Counter(str(result.status) for result in results)
    counted = {name: getattr(status, name) for name in _COUNTED}
    assert counted == {name: stored[name] for name in _COUNTED}, f"{expected.id}: counted {counted}, stored {stored}"
    assert sum(counted.values()) == status.total == len(expected.prompts), f"{expected.id}: {status}"
    for result in results:
        if result.status is ResultStatus.SUCCEEDED:
            assert result.text == expected.prompts[result.key], f"{expected.id}: {result}"
        assert (result.error is None) is (result.status is ResultStatus.SUCCEEDED), f"{expected.id}: {result}"
    assert (status.undelivered, status.parked) == (0, 0), f"{expected.id}: {status}"
    if expected.handler is not None and not expected.dropped:
        taken = simulation.delivered(expected)
        assert taken == expected.prompts.keys(), f"{expected.id}: never delivered {expected.prompts.keys() - taken}"


def _check_handler(simulation: Simulation) -> None:
    files = list(simulation.results_of.values())
    assert len(files) == len(set(files)), f"the same results under two delivery ids: {simulation.results_of}"


def _check_left_overs(simulation: Simulation, *, late: bool) -> None:
    client = simulation.redis
    there = {expected.id for expected in simulation.expected.values() if simulation.known(expected.id)}
    on_clock = {member for queue in Queue for member in _members(simulation, keys.clock(queue))}
    assert on_clock == {"sweep"} | {keys.batch_member(one) for one in there}, f"on the clock: {on_clock}"
    for name in (keys.live("gemini"), keys.in_hand(TASK), keys.queued(TASK), keys.PARKED):
        assert not (left := _members(simulation, name)), f"{name}: {left}"
    assert set(_members(simulation, keys.BATCHES)) == there
    names = [name.decode() for name in cast("list[bytes]", client.keys("lowtide:*"))]
    of_models = (keys.waiting, keys.strand, keys.strands, keys.strand_of, keys.share, keys.live_tokens)
    lines = (*(key("gemini", "") for key in of_models), keys.served("gemini"), keys.reserved(""), keys.waiting_for(""))
    assert not (left := [name for name in names if name.startswith(lines)]), f"jobs that wait or live: {left}"
    for key in [name for name in names if not name.startswith(_PERMANENT)]:
        assert key.startswith(_OF_A_BATCH), f"left: {key}"
        kind, owner = key.split(":")[1:3]
        if kind == "idempotency":
            owner = cast("bytes", client.get(key)).decode().partition(" ")[0]
        assert owner.partition("-")[0] in there, f"left: {key}"
    assert simulation.restored or not (left := simulation.provider.left()), (
        f"at the provider: {left} of {simulation.provider.all}"
    )
    folders = {one for one in simulation.spool.folders("batches") if not simulation.expected[one].forgotten}
    there = {one for one in there if not simulation.expected[one].forgotten}
    assert folders == there, f"in the spool: {folders}, in the store: {there}"
    for batch_id in there:
        left = simulation.spool.names(f"batches/{batch_id}/jobs")
        assert late or is_of_small_jobs(client, batch_id, left), f"working files of {batch_id}: {left}"


def _members(simulation: Simulation, name: str) -> list[str]:
    return [member.decode() for member in cast("list[bytes]", simulation.redis.zrange(name, 0, -1))]


def _ends_of_keys() -> dict[str, str]:
    """The end of each key, as the table of keys has it, by the prefix of the key."""
    rows = [[cell.strip() for cell in line.split("|")] for line in str(keys.__doc__).splitlines()]
    return {
        row[1].strip("`").partition("<")[0]: row[4] for row in rows if len(row) > 4 and row[1].startswith("`lowtide:")
    }


_ENDS = _ends_of_keys()
_OF_A_BATCH = tuple(key for key, end in _ENDS.items() if end.startswith("with its batch"))
_PERMANENT = tuple(
    key for key, end in _ENDS.items() if not end.startswith(("with its batch", "when delivered or dropped"))
)
