"""The jobs that the status of a batch shows: all of them, or some of each state where there are thousands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, repeat
from math import isfinite
from typing import Any, NamedTuple

import redis
from msgspec.structs import replace

from lowtide.models import BatchStatus, JobStatus, Waiting
from lowtide.protocol import BatchRecord, Stage, job_id, job_prefix, job_status, keys
from lowtide.states import JobState
from lowtide.store import scripts

_AT_ONCE = 2000
"""Jobs whose states one script reads: Redis does nothing else for some milliseconds."""
_MOST_COUNTED = 100_000
"""Jobs of a batch that are counted at most: the newest."""
_FEWEST_OF_A_STATE = 5
"""Jobs that each state has among those that are chosen, as far as it has so many."""


class _Share(NamedTuple):
    """The requests of a batch in its bundle."""

    first: int
    """Ordinal of the first."""
    last: int
    """Ordinal behind the last."""


class _Run(NamedTuple):
    """Jobs one after the other that are in the same state, with the sums of their fields."""

    state: JobState | None
    """None: they do not exist."""
    waits: bool
    jobs: int
    requests: int
    tokens: int
    done: int


class Jobs(NamedTuple):
    """Jobs of a batch, or of its bundle."""

    shown: list[JobStatus]
    runs: list[_Run]
    """All of its jobs, where only some are shown."""

    def complete(self, status: BatchStatus) -> BatchStatus:
        """Returns a status that was made of the jobs that are shown, with the counts and sums of all of them."""
        if not self.runs:
            return replace(status, job_counts=dict(Counter(job.state for job in self.shown)))
        counts: Counter[JobState] = Counter()
        for run in self.runs:
            if run.state is not None:
                counts[run.state] += run.jobs
        return replace(status, job_counts=dict(counts), answered=self._answered(status), waiting=self._waiting(status))

    def _answered(self, status: BatchStatus) -> int:
        """Requests that succeeded or failed, or have an answer at the provider."""
        if status.finished_at is not None or status.bundle:
            return status.answered
        under_way = [run for run in self.runs if run.state is not None and not run.state.terminal]
        ended = max(status.settled, status.total - sum(run.requests - run.done for run in under_way))
        return ended - status.cancelled - status.expired

    def _waiting(self, status: BatchStatus) -> Waiting | None:
        waiting = [run for run in self.runs if run.state is JobState.PLANNED and run.waits]
        if status.waiting is None or not waiting:
            return status.waiting
        return replace(
            status.waiting,
            requests=min(status.total - status.settled, sum(run.requests for run in waiting)),
            tokens=min(status.estimated_tokens, sum(run.tokens for run in waiting)),
        )


def read_jobs(client: redis.Redis, batch: BatchRecord, most: int | None) -> Jobs:
    """Reads the jobs of a batch, and those of its bundle that carry requests of it, in the order of their numbers.

    - `most`: the number of jobs to read; None: all, up to 100,000. Where there are more, some of each state are read.
    """
    # A damaged record may have any number of jobs.
    most = _MOST_COUNTED if most is None else most
    owners = {batch.id: batch.jobs}
    if batch.bundle:
        owners[batch.bundle] = _number(client.hget(keys.batch(batch.bundle), "jobs"))
    share = _share(client, batch) if batch.bundle else None
    if sum(owners.values()) <= most:
        names = [job_id(owner, number) for owner, jobs in owners.items() for number in range(1, jobs + 1)]
        return Jobs(_read(client, names, batch, share), [])
    runs: list[_Run] = []
    states: dict[str, JobState] = {}
    for owner, jobs in owners.items():
        oldest = max(1, jobs - _MOST_COUNTED + 1)
        found = _runs(client, owner, range(oldest, jobs + 1))
        each = chain.from_iterable(repeat(run.state, run.jobs) for run in found)
        states |= {job_id(owner, number): state for number, state in enumerate(each, start=oldest) if state}
        runs += found
    return Jobs(_read(client, _chosen(states, most), batch, share), runs)


def _share(client: redis.Redis, batch: BatchRecord) -> _Share | None:
    first = client.zscore(keys.bundled(batch.bundle or ""), batch.id)
    # The set may be damaged, and then the jobs are shown as they are.
    return _Share(int(first), int(first) + batch.total) if isinstance(first, float) and isfinite(first) else None


def _number(value: Any) -> int:
    """A number of jobs; 0 where the record of the bundle is damaged, which concerns this batch little."""
    return int(value) if isinstance(value, bytes) and value.isdigit() else 0


def _read(client: redis.Redis, names: Sequence[str], batch: BatchRecord, share: _Share | None) -> list[JobStatus]:
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(keys.job(name))
            pipe.zscore(keys.clock(Stage.POLL.queue), keys.job_member(name))
        replies = pipe.execute(raise_on_error=False)
    found = zip(names, replies[::2], replies[1::2], strict=True)
    records = {name: (job, due) for name, job, due in found if job}
    statuses = [job_status(name, job, _turn(due)) for name, (job, due) in records.items()]
    if share is None:
        return statuses
    shared = {name: job for name, (job, _) in records.items() if not name.startswith(job_prefix(batch.id))}
    own = _own_requests(client, shared, share)
    return [_shown(job, own.get(job.id, job.requests)) for job in statuses if own.get(job.id, 1)]


def _shown(job: JobStatus, own: int) -> JobStatus:
    return replace(job, requests=own, others=job.requests - own) if own < job.requests else job


def _own_requests(client: redis.Redis, jobs: Mapping[str, Any], share: _Share) -> dict[str, int]:
    """The number of requests of a batch in each of these jobs of its bundle. A damaged record is left out."""
    own: dict[str, int] = {}
    with client.pipeline(transaction=False) as pipe:
        sparse = []
        for name, job in jobs.items():
            with suppress(KeyError, ValueError, TypeError):
                start, end = int(job[b"first"]), int(job[b"last"])
                first, last = max(start, share.first), min(end, share.last)
                own[name] = max(0, last - first)
                if own[name] and job.get(b"sparse") == b"1":
                    sparse.append(name)
                    pipe.bitcount(keys.carried(name), first - start, last - start - 1, "BIT")
        counts = pipe.execute(raise_on_error=False)
    return own | {name: count for name, count in zip(sparse, counts, strict=True) if isinstance(count, int)}


def _runs(client: redis.Redis, owner: str, numbers: range) -> list[_Run]:
    read = scripts.job_states.load(client)
    found: list[_Run] = []
    for first in range(numbers.start, numbers.stop, _AT_ONCE):
        last = min(numbers.stop, first + _AT_ONCE) - 1
        runs = read(batch=keys.batch(owner), job_prefix=keys.job(job_prefix(owner)), first=first, last=last)
        found += [_Run(_state(state) if state else None, bool(waits), *sums) for state, waits, *sums in runs]
    return found


def _state(stored: bytes) -> JobState:
    try:
        return JobState(stored.decode(errors="replace"))
    except ValueError:
        return JobState.UNKNOWN  # of a newer version, or damaged


def _chosen(states: Mapping[str, JobState], most: int) -> list[str]:
    """Some jobs of each state, and as many as there is room for of those that a person asks for first."""
    of_state: dict[JobState, list[str]] = defaultdict(list)
    for name, state in states.items():
        of_state[state].append(name)
    for state, names in of_state.items():
        if state is not JobState.PLANNED:  # of those that wait, the first is the next one
            names.reverse()
    fewest = min(_FEWEST_OF_A_STATE, most // len(of_state)) if of_state else 0
    chosen = {name for names in of_state.values() for name in names[:fewest]}
    for state in sorted(of_state, key=interest):
        rest = (name for name in of_state[state] if name not in chosen)
        chosen |= {name for _, name in zip(range(most - len(chosen)), rest, strict=False)}
    return [name for name in states if name in chosen]


def interest(state: JobState) -> int:
    """The rank of a state: live jobs, those that ended badly, those that wait, and the rest."""
    if state is JobState.SUCCEEDED:
        return 3
    if state is JobState.PLANNED:
        return 2
    return 1 if state.terminal else 0


def _turn(score: object) -> float | None:
    """The time at which a job is due; None where it is on no clock, or its clock is no sorted set any more."""
    return score % keys.LOWER_TURN if isinstance(score, float) else None
