"""The invariants of finished batches, whatever happened to them: checked from the outside only.

The witnesses are the stored results, the status, the emulator's own record of jobs and billed rows, the spool's
files, the keys in Redis, and the log of the handler app.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from statistics import median
from typing import Self, cast

import redis
from msgspec.structs import replace
from tests.bills import billed, paid_by_day
from tests.census import counted, scanned
from tests.chaos.chaos_stack import IN_PARTS, ChaosStack, Submitted
from tests.chaos.permanent_keys import PERMANENT_KEYS
from tests.chaos.spool_files import check_drafts, files_in
from tests.waiting import wait_until

from lowtide import BatchNotFound, ResultStatus
from lowtide.protocol import keys, measures
from lowtide_emulator import JobRecord


@dataclass
class Figures:
    """The figures of a run. They can be added."""

    batches: int = 0
    requests: int = 0
    kills: int = 0
    restarts: int = 0
    faults: int = 0
    lost: int = 0
    double_counted: int = 0
    jobs_created: int = 0
    jobs_needed: int = 0
    twins: int = 0
    twins_removed: int = 0
    billed_twice: int = 0
    results_delivered: int = 0
    deliveries_again: int = 0
    recovery: list[float] = field(default_factory=list)

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def table(self) -> str:
        """As lines of a Markdown table."""
        rows = [(label, getattr(self, name)) for name, label in _LABELS.items()]
        if self.recovery:
            rows.append(("recovery, median", f"{median(self.recovery):.1f} s"))
            rows.append(("recovery, worst", f"{max(self.recovery):.1f} s"))
        return "\n".join(["| figure | count |", "|---|---:|", *(f"| {label} | {value} |" for label, value in rows)])


_LABELS = {
    "batches": "batches",
    "requests": "requests",
    "kills": "processes killed (SIGKILL)",
    "restarts": "Redis killed and started",
    "faults": "provider faults injected",
    "lost": "requests without a result",
    "double_counted": "requests with two results",
    "jobs_created": "provider jobs created",
    "jobs_needed": "provider jobs needed",
    "twins": "surplus provider jobs (twins)",
    "twins_removed": "twins cancelled and deleted",
    "billed_twice": "rows billed again without need",
    "results_delivered": "results that reached the handler",
    "deliveries_again": "deliveries that came more than once",
}


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The allowed cost of a scenario; by default nothing beyond one row and one job each."""

    twins: int = 0
    """Second provider jobs for one job, which a lost reply and a list that lags behind make unavoidable."""
    billed_again: int = 0
    """Rows that had to be run again: the provider took money for them and gave nothing usable."""
    unseen: bool = False
    """Rows are billed that never come, and their requests do not run again."""
    unsent: int | None = 0
    """Requests of cancelled batches that no job of their bundle has; None where it is not known how many."""
    quarantined: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    drafts: bool = False
    """A process was killed: what it was writing stays until the batch is deleted, or until the sweep finds it old."""
    swapped: bool = False
    """The provider gives one request's answer under another's key, which cannot be seen by the key alone."""
    statuses: frozenset[str] = frozenset({"succeeded", "failed"})


def check(stack: ChaosStack, submitted: Sequence[Submitted], allowed: Allowed | None = None) -> Figures:
    """Every invariant, over finished batches of a stack at rest. Raises `AssertionError`."""
    allowed = allowed or Allowed()
    total = Figures()
    for one in submitted:
        if not one.deleted:
            total += check_results(one, allowed)
    check_retries(stack, submitted, allowed)
    check_costs(stack, submitted, allowed)
    total += check_provider(stack, submitted, allowed)
    total += check_handler(stack, [one for one in submitted if one.handled])
    check_batch_events(stack, submitted)
    for one in submitted:
        assert not stack.redis.exists(keys.reserved(one.id), keys.waiting_for(one.id)), f"{one.id} holds a budget"
    check_left_overs(stack, submitted, allowed)
    return total


def check_results(one: Submitted, allowed: Allowed) -> Figures:
    """Conservation, and each result to its own request."""
    status = one.batch.status()
    results = list(one.batch.results())
    lines = Counter(result.key for result in results)
    figures = Figures(
        batches=1,
        requests=len(one.prompts),
        lost=len(one.prompts.keys() - lines.keys()),
        double_counted=sum(count - 1 for count in lines.values()),
    )
    assert lines.keys() == one.prompts.keys(), f"{one.id}: lost {one.prompts.keys() - lines.keys()}, {status}"
    assert set(lines.values()) == {1}, f"{one.id}: more than one result for {[k for k, n in lines.items() if n > 1]}"
    by_status = Counter(str(result.status) for result in results)
    counted = {name: getattr(status, name) for name in ("succeeded", "failed", "expired", "cancelled")}
    assert status.total == len(one.prompts)
    assert counted == {name: by_status[name] for name in counted}, f"{one.id}: counted {counted}, stored {by_status}"
    assert by_status.keys() <= allowed.statuses, f"{one.id}: {by_status}"
    for result in results:
        if result.status is ResultStatus.SUCCEEDED and not allowed.swapped:
            mine = one.prompts[result.key].rpartition(" ")[2].rstrip(".")
            assert result.text is not None
            assert mine in result.text.rstrip(".").split(), f"{one.id}: {result.key!r} has the answer {result.text!r}"
            if IN_PARTS.match(one.prompts[result.key]):
                assert result.text == one.prompts[result.key], f"{one.id}: {result.key!r} is not whole"
        elif result.status is not ResultStatus.SUCCEEDED:
            assert result.error is not None, f"{one.id}: {result}"
    spent = [result.usage.total_token_count for result in results if result.usage]
    assert status.usage.total_token_count == sum(spent), f"{one.id}: tokens counted otherwise than stored"
    reasons = Counter(result.error.reason for result in results if result.error)
    assert status.reasons == reasons, f"{one.id}: reasons counted {status.reasons}, stored {reasons}"
    models = Counter(result.model_version for result in results if result.model_version)
    assert status.models == models, f"{one.id}: models counted {status.models}, stored {models}"
    assert status.ended == status.total, f"{one.id}: {status.ended} of {status.total} have ended"
    paid, known = status.discarded_usage.total_token_count, sum(one.discarded)
    if allowed.twins:  # a twin that is not read may have had the first answers
        assert paid <= known, f"{one.id}: {paid} discarded tokens of {known}"
    # A cancelled request may have no row, or rows of which none becomes its result.
    elif not (allowed.billed_again or allowed.duplicates or allowed.quarantined or by_status["cancelled"]):
        assert paid == known, f"{one.id}: {paid} discarded tokens, {known} were paid for without a result"
    assert status.quarantined <= allowed.quarantined, f"{one.id}: {status.quarantined} rows quarantined"
    # The rows of a cancelled batch still come where others share its jobs.
    if not (status.bundle and by_status["cancelled"]):
        assert status.duplicates <= allowed.duplicates, f"{one.id}: {status.duplicates} duplicate rows"
    return figures


def check_retries(stack: ChaosStack, submitted: Sequence[Submitted], allowed: Allowed) -> None:
    """Requests that ran again are counted once each, whatever the reason: as many as the retry jobs carry."""
    if allowed.unsent is None or any(one.deleted for one in submitted):
        return
    counters = cast("dict[bytes, bytes]", stack.redis.hgetall(keys.COUNTERS))
    counted = {name: int(n) for name, n in counters.items() if name.startswith(measures.RETRIES.encode() + b"|")}
    carried: dict[str, int] = {}
    for one in submitted:
        name = one.bundle or one.id
        jobs = one.batch.status().jobs
        # Batches that share a job have each their own requests of it.
        carried |= {job.id: job.requests + job.others for job in jobs if job.id.rpartition("-")[0] == name}
    again = sum(carried.values()) + allowed.unsent - sum(len(one.prompts) for one in submitted)
    assert sum(counted.values()) == again, f"{again} requests ran again, counted are {counted}"


def check_costs(stack: ChaosStack, submitted: Sequence[Submitted], allowed: Allowed) -> None:
    """Costs are those of the tokens that the emulator has billed, and of every day, to the nano-dollar."""
    carriers: dict[str, list[Submitted]] = defaultdict(list)
    for one in submitted:
        carriers[one.bundle or one.was_in or one.id].append(one)
    records, paid_in_all = stack.emulator.jobs(), 0
    exact = not (allowed.twins or allowed.billed_again or allowed.unseen)
    for name, batches in carriers.items():
        there = [one for one in batches if not one.deleted]
        if not there:
            continue
        paid = int(cast("bytes | None", stack.redis.hget(keys.batch(name), "paid_cost")) or 0)
        expected = billed(records, [name])
        assert paid == expected if exact else paid <= expected, f"{name}: {paid} nano-dollars paid, billed: {expected}"
        paid_in_all += paid
        of_batches = sum(one.batch.status().paid_cost or 0 for one in there)
        is_part = allowed.quarantined or len(there) < len(batches)
        assert of_batches == paid or (is_part and of_batches <= paid), f"{name}: {of_batches} of {paid}"
        for one in there:
            costs = [result.cost for result in one.batch.results()]
            assert one.batch.status().cost == sum(cost for cost in costs if cost), f"{one.id}: {costs}"
    in_days = paid_by_day(stack.redis).cost
    if not any(one.deleted for one in submitted):
        assert in_days == paid_in_all, f"{in_days} nano-dollars in all days, {paid_in_all} in all batches"
    elif exact:
        # The days also have the costs of batches that are deleted.
        expected = billed(records, carriers)
        assert in_days == expected, f"{in_days} nano-dollars in all days, billed: {expected}"


def check_provider(stack: ChaosStack, submitted: Sequence[Submitted], allowed: Allowed) -> Figures:
    """Never paid twice, and nothing left at the provider."""
    records: dict[str, list[JobRecord]] = defaultdict(list)
    for record in stack.emulator.jobs(keys=True):
        batch_id, _, _ = record.display_name.removeprefix(stack.display_name("")[:-1]).rpartition("-")
        records[batch_id].append(record)
    figures = Figures(faults=sum(fault.fired for fault in stack.emulator.faults()))
    for name, requests in _carried(submitted).items():
        figures += _check_jobs(name, requests, records.pop(name, []))
    assert not records, f"jobs of unknown batches at the provider: {list(records)}"
    assert figures.twins <= allowed.twins, f"{figures.twins} twins"
    assert figures.twins_removed == figures.twins
    expected = allowed.billed_again + sum(len(one.discarded) + one.continuations for one in submitted)
    assert figures.billed_twice <= expected, f"{figures.billed_twice} rows billed again: {_billed(stack)}"
    figures.billed_twice = max(0, figures.billed_twice - expected)
    assert not stack.uploads(), f"uploaded files left: {stack.uploads()}"
    return figures


def _carried(submitted: Sequence[Submitted]) -> dict[str, int]:
    """By the batch or the bundle whose jobs carry them: the number of requests."""
    carried: Counter[str] = Counter()
    for one in submitted:
        carried[one.bundle or one.was_in or one.id] += len(one.prompts)
    return dict(carried)


def _check_jobs(name: str, requests: int, records: list[JobRecord]) -> Figures:
    by_name: dict[str, list[JobRecord]] = defaultdict(list)
    carriers: dict[int, list[JobRecord]] = defaultdict(list)
    billed: Counter[str] = Counter()
    for record in records:
        assert not record.live, f"{name}: {record.name} is live"
        assert record.deleted, f"{name}: {record.name} is left at the provider"
        by_name[record.display_name].append(record)
        billed.update(record.billed_keys or ())
        for key in record.keys or ():
            carriers[int(key.partition(".")[0].removeprefix("r"))].append(record)
    assert carriers.keys() <= set(range(requests))
    twins = sum(len(same) - 1 for same in by_name.values())
    for ordinal, jobs in carriers.items():
        jobs.sort(key=lambda record: record.created)
        for earlier, later in pairwise(jobs):
            if earlier.ended is None or later.created < earlier.ended:
                same = earlier.display_name == later.display_name
                assert same, f"{name}: request {ordinal} lived in {earlier} and {later} at once"
    return Figures(
        jobs_created=len(records),
        jobs_needed=len(by_name),
        twins=twins,
        twins_removed=twins,  # that none of them is live or left was checked above
        billed_twice=sum(count - 1 for count in billed.values()),
    )


def _billed(stack: ChaosStack) -> list[tuple[str, list[JobRecord]]]:
    """The rows that were billed more than once, with the jobs that billed them."""
    jobs: dict[str, list[JobRecord]] = defaultdict(list)
    for record in stack.emulator.jobs(keys=True):
        for key in record.billed_keys or ():
            jobs[key].append(replace(record, keys=None, billed_keys=None))
    return [(key, records) for key, records in jobs.items() if len(records) > 1][:3]


def check_handler(stack: ChaosStack, submitted: Sequence[Submitted]) -> Figures:
    """At least once, with a stable delivery id."""
    taken = stack.taken()
    results_of: dict[str, set[str]] = defaultdict(set)
    deliveries: Counter[str] = Counter()
    for line in stack.log_lines():
        if "delivery" in line:
            results_of[line["delivery"]].add(line["results"])
            deliveries[line["delivery"]] += 1
    unstable = [delivery for delivery, results in results_of.items() if len(results) > 1]
    assert not unstable, f"the same delivery id for other results: {unstable}"
    names = [name for results in results_of.values() for name in results]
    assert len(names) == len(set(names)), "the same results under two delivery ids"
    for one in submitted:
        missed = [key for key in one.prompts if not taken[key]]
        assert not missed, f"{one.id}: never reached the handler: {missed}"
        if one.deleted:
            continue
        status = one.batch.status()
        assert (status.undelivered, status.parked) == (0, 0), f"{one.id}: {status}"
        folder = one.bundle or one.id
        files = {name for name in files_in(stack, f"batches/{folder}/results") if not name.endswith(".part")}
        delivered = {name for name in names if f"/{folder}/" in name}
        assert delivered == files, f"{one.id}: delivered {delivered}, stored {files}"
    ours = {key for one in submitted for key in one.prompts}
    assert taken.keys() <= ours, f"the handler was given keys of no batch: {taken.keys() - ours}"
    return Figures(results_delivered=len(taken), deliveries_again=sum(count - 1 for count in deliveries.values()))


def check_batch_events(stack: ChaosStack, submitted: Sequence[Submitted]) -> None:
    """The end of each batch was reported at least once, as it was, and no other batch's."""
    notified = stack.notified()
    for one in (each for each in submitted if each.notified):
        states = {(line["state"], int(line["settled"])) for line in notified.pop(one.id)}
        assert len(states) == 1, f"{one.id}: its end was reported as {states}"
        [(state, settled)] = states
        assert settled == len(one.prompts)
        assert one.deleted or state == one.batch.status().state
    assert not notified, f"batch events of no batch: {notified}"


def check_left_overs(stack: ChaosStack, submitted: Sequence[Submitted], allowed: Allowed) -> None:
    """Nothing is stuck on the clock, at admission, in the spool or on a key of its own."""
    client = stack.redis
    bundles = {one.bundle for one in submitted if one.bundle}
    names = {one.id for one in submitted if not one.deleted} | bundles
    permanent = {b"batch:%b" % name.encode() for name in names} | {b"sweep"}
    # A worker that was killed leaves its lock, which ends with its lease.
    wait_until(lambda: not list(client.scan_iter("lowtide:inbox:*", count=1000)), what="no lock of the inbox is held")
    on_clock = set(client.zrange("lowtide:clock:lowtide.jobs", 0, -1)) | set(
        client.zrange("lowtide:clock:lowtide.results", 0, -1)
    )
    assert on_clock == permanent, f"on the clock: {on_clock ^ permanent}"
    assert not client.zrange(f"lowtide:live:{stack.provider}", 0, -1), "jobs that are still live"
    for name in ("waiting", "live-tokens"):
        assert not list(client.scan_iter(f"lowtide:{name}:*", count=1000)), f"jobs that are still {name}"
    keys = {key.decode() for key in client.scan_iter("lowtide:*", count=1000)}
    keys = {key for key in keys if not key.startswith(PERMANENT_KEYS)}
    for one in submitted:
        own = {key for key in keys if one.id in key}
        keys -= own
        kinds = {key.split(":")[1] for key in own}
        assert kinds <= (
            set() if one.deleted else {"batch", "settled", "job", "carried", "idempotency", "result-index"}
        ), f"left: {own}"
    for bundle in bundles:
        own = {key for key in keys if bundle in key}
        keys -= own
        assert {key.split(":")[1] for key in own} <= {
            "batch",
            "settled",
            "job",
            "carried",
            "bundled",
            "result-index",
        }, f"left: {own}"
    assert not keys, f"keys that belong to no batch: {keys}"
    assert counted(client) == scanned(client), "the census differs from what exists"
    check_drafts(stack, allowed=allowed.drafts)
    for name in [*bundles, *(one.id for one in submitted)]:
        stays = name in names
        left = files_in(stack, f"batches/{name}/jobs" if stays else f"batches/{name}")
        assert not left or (stays and is_of_small_jobs(client, name, left)), f"{name}: left {left}"
    letters = client.lrange("lowtide:dead-letters", 0, -1)
    assert len(letters) <= allowed.dead_letters, f"dead letters: {letters[:3]}"


def is_of_small_jobs(client: redis.Redis, batch_id: str, names: Iterable[str]) -> bool:
    """Whether working files are all of small jobs, which keep them until their batch is deleted."""
    numbers = {name.split("/")[3] for name in names}
    for number in numbers:
        segments, sparse = cast("list[bytes]", client.hmget(f"lowtide:job:{batch_id}-{number}", "segments", "sparse"))
        if int(segments or 0) > 1 or sparse == b"1":
            return False
    return True


def is_gone(one: Submitted) -> bool:
    """Whether a batch that was to be deleted is."""
    try:
        one.batch.status()
    except BatchNotFound:
        return True
    return False
