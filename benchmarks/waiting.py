"""Part 4, waiting: the cost of jobs that wait, and the lateness of those that fall due.

The project's own scripts put jobs into the store, step by step as a submit and a create would, one job to a batch, to
be polled in a day. Only the calls to the provider are left out. Then a new worker with one process runs beside them:
its first sweep, an idle period, and a stream of jobs that fall due at a steady rate. A stub provider notes when each
job was polled; lateness is that moment minus the due time in Redis. The same is measured with Celery's countdown, where
one worker holds every message and its task notes when it runs.

Lowtide has its default settings here, so its clock ticks once a second. One more row has ten ticks a second.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import httpx
import redis
from celery import Celery

from benchmarks import workload
from benchmarks.measure import Run, Use, cpu_seconds, peak_mib, percentile, reset_peak, tree
from benchmarks.parts import Config, Found, Measured, Summary, at_most, console
from benchmarks.servers import Bench, Workers
from lowtide.options import Options
from lowtide.protocol import Member, Queue, Stage, job_id, keys, new_batch_id
from lowtide.protocol.changes import JobChange
from lowtide.spool import Accepted, Spool
from lowtide.states import JobState
from lowtide.store import Store, Unrecorded
from lowtide_cli.local import free_port
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import Clock, Held, HeldBatch, HeldJob, Ledger, Move, NotHeld, Ordinals

NAME = "waiting"
LOWTIDE = "Lowtide"
LOWTIDE_FINE = "Lowtide, ten ticks a second"
COUNTDOWN = "Celery countdown"
_DAY = 86_400.0
_RATE = 50.0
"""The number of jobs that fall due each second."""
_IDLE_SECONDS = 4.0
_LEAD_SECONDS = 2.5
_LATEST_SECONDS = 15.0
_FILLERS = 3


class Filler:
    """A writer of waiting jobs into the store."""

    def __init__(self, redis_url: str, spool_url: str) -> None:
        settings = WorkerSettings(_env_file=None, redis_url=redis_url, spool_url=spool_url)
        self._store = Store(settings)
        self._installation = self._store.installation(Spool(settings.spool_url))
        client = redis.Redis.from_url(redis_url)
        self._clock = Clock(client, settings)
        self._ledger = Ledger(client, settings)
        self._options = Options.checked(settings, model=workload.MODEL)

    def add(self, name: str, after: float) -> str:
        """Adds a batch with one job that is polled `after` seconds from now. Returns the job's member of the clock."""
        batch_id = new_batch_id()
        batch = keys.batch_member(batch_id)
        new = Unrecorded(batch_id, self._options, Accepted(1, 120, 16, "bench"), "bench", {})
        self._store.register([new], self._installation)
        held = self._held(Stage.SUBMIT, batch)
        assert isinstance(held, HeldBatch)
        self._ledger.draft(held, 1, [Ordinals(first=0, last=1)])
        self._ledger.plan(held, 1)
        member = keys.job_member(job_id(batch_id, 1))
        job = self._held(Stage.CREATE, member)
        assert isinstance(job, HeldJob)
        fields: JobChange = {
            "intent": job.now(),
            "input": f"files/{name}",
            "name": f"batches/{name}",
            "state": JobState.PENDING,
            "provider_state": "BATCH_STATE_PENDING",
            "created": job.now(),
        }
        self._clock.advance(job, Move(stage=Stage.POLL, after=after, fields=fields))
        return member

    def _held(self, stage: Stage, member: Member) -> Held[Any]:
        held = self._clock.begin(stage, member, 0)
        if isinstance(held, NotHeld):
            raise TypeError(f"{member} is {held}")
        return held


def _fill(bench: Bench, first: int, last: int) -> None:
    """Puts jobs into the store that wait for a day, with several processes at once."""
    step = max(1, -(-(last - first) // _FILLERS))
    with ProcessPoolExecutor(_FILLERS, mp_context=get_context("spawn")) as pool:
        tasks = [
            pool.submit(_fill_some, bench.redis_server.url, bench.spool_url, start, min(last, start + step))
            for start in range(first, last, step)
        ]
        for task in tasks:
            task.result()


def _fill_some(redis_url: str, spool_url: str, first: int, last: int) -> None:
    filler = Filler(redis_url, spool_url)
    for number in range(first, last):
        filler.add(f"far-{number}", _DAY + number % 3600)


@contextmanager
def _stub(bench: Bench) -> Iterator[str]:
    """Runs the stub provider during the block. Yields its URL."""
    port = free_port()
    with bench.server("provider", ["benchmarks.http_server", str(port)], port):
        yield f"http://127.0.0.1:{port}"


def _used_memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _uses(pid: int) -> list[Use]:
    """Returns the memory peak of each process of a worker since the last reset."""
    parent, *children = tree(pid)
    named = [("worker", parent), *((f"worker child {number}", child) for number, child in enumerate(children, 1))]
    return [Use(role, peak_mib(member) or 0.0, 0.0) for role, member in named]


def _idle(pid: int) -> float:
    """Returns the processor time of an idle worker, in percent of a core."""
    before = cpu_seconds(pid)
    time.sleep(_IDLE_SECONDS)
    return 100 * (cpu_seconds(pid) - before) / _IDLE_SECONDS


def _collect(count: int, seen: Callable[[], list[float]]) -> list[float]:
    end = time.monotonic() + count / _RATE + _LEAD_SECONDS + _LATEST_SECONDS
    while len(found := seen()) < count and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _lowtide(bench: Bench, filler: Filler, size: int, due: int, *, fine: bool) -> Run:
    """Measures a new worker beside the jobs in the store."""
    client = bench.redis()
    client.delete(keys.entity(keys.SWEEP_MEMBER))
    client.zrem(keys.clock(Queue.JOBS), keys.SWEEP_MEMBER)
    # Added while no worker runs, because a worker could start on them. Their due times are set below.
    names = [f"due-{size}-{int(fine)}-{number}" for number in range(due)]
    members = {name: filler.add(name, _DAY) for name in names}
    with _stub(bench) as url:
        env = {
            "GOOGLE_GEMINI_BASE_URL": url,
            "LOWTIDE_POLL_FIRST_SECONDS": str(_DAY),
            "LOWTIDE_POLL_MAX_SECONDS": str(_DAY),
            "LOWTIDE_CLOCK_TICK_SECONDS": "0.1" if fine else "1",
        }
        began = time.monotonic()
        with Workers(bench, "lowtide_worker", 1, env=env) as workers:
            # The first sweep is done when the clock has the next one.
            while (client.zscore(keys.clock(Queue.JOBS), keys.SWEEP_MEMBER) or 0) < time.time() + 120:
                time.sleep(0.05)
            sweep_seconds, sweep_cpu = time.monotonic() - began, cpu_seconds(workers.pid)
            idle = _idle(workers.pid)
            lateness: list[float] = []
            if due:
                start = time.time() + _LEAD_SECONDS
                due_at = {name: start + number / _RATE for number, name in enumerate(members)}
                client.zadd(keys.clock(Queue.JOBS), {members[name]: when for name, when in due_at.items()}, xx=True)

                def seen() -> list[float]:
                    asked = httpx.get(f"{url}/_seen").json()["asked"]
                    polled = {name: asked[f"batches/{name}"] for name in due_at if f"batches/{name}" in asked}
                    return [when - due_at[name] for name, when in polled.items()]

                lateness = _collect(due, seen)
            uses = _uses(workers.pid)
    return _run(size, uses, due, lateness, idle, sweep_seconds=sweep_seconds, sweep_cpu_seconds=sweep_cpu)


def _run(size: int, uses: list[Use], due: int, lateness: list[float], idle: float, **extra: float) -> Run:
    error = None if len(lateness) == due else f"{len(lateness)} of {due} due jobs were polled"
    p50, p99 = (percentile(lateness, share) if lateness or not due else None for share in (0.5, 0.99))
    return Run(_IDLE_SECONDS, size, error, uses, {"idle_percent": idle, "p50": p50, "p99": p99, **extra})


class Countdown:
    """Plain Celery: one worker that holds every message until it is due."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = bench.folder / "countdown"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._app = Celery("countdown-sender", broker=bench.redis_server.url, set_as_current=False)
        self._app.conf.update(task_serializer="json", task_ignore_result=True)
        self.workers = Workers(
            bench, "benchmarks.countdown_app", 1, options=("-Q", "countdown"), env={"BENCH_COUNTS": str(self._folder)}
        )

    def fill(self, first: int, last: int) -> None:
        """Sends messages that are due in a day, and waits until the worker holds them."""
        with self._app.producer_pool.acquire(block=True) as producer:
            for number in range(first, last):
                self._send(producer, f"far-{number}", time.time() + _DAY)
        client = self._bench.redis()
        while client.hlen("unacked") < last or client.llen("countdown"):
            time.sleep(0.1)

    def _send(self, producer: Any, job: str, due: float) -> None:
        self._app.send_task(
            "countdown.poll", (job, due), countdown=due - time.time(), queue="countdown", producer=producer
        )

    def measure(self, size: int, due: int) -> Run:
        """Measures the running worker in the same way as Lowtide's."""
        for pid in tree(self.workers.pid):
            reset_peak(pid)
        idle = _idle(self.workers.pid)
        start = time.time() + _LEAD_SECONDS
        with self._app.producer_pool.acquire(block=True) as producer:
            for number in range(due):
                self._send(producer, f"due-{number}", start + number / _RATE)

        def seen() -> list[float]:
            return [late for due_at, late in self._lateness().items() if due_at >= start]

        lateness = _collect(due, seen) if due else []
        return _run(size, _uses(self.workers.pid), due, lateness, idle)

    def _lateness(self) -> dict[float, float]:
        found = {}
        for path in self._folder.iterdir():
            for line in path.read_text().splitlines():
                due, ran = map(float, line.split())
                found[due] = ran - due
        return found


def measure(config: Config) -> dict[str, Any]:
    """Runs the part. Each size adds jobs to those of the last one."""
    due = 100 * config.repeat
    cases: list[dict[str, Any]] = []

    def note(name: str, size: int, run: Run) -> None:
        cases.append(Measured(name, size, [run]).record())
        console.print(
            f"  {name}, {size:,}: idle {run.extra['idle_percent']:.1f} %, peak {run.peak('worker'):.0f} MiB, "
            f"late p50 {run.extra['p50'] or 0:.3f} s, p99 {run.extra['p99'] or 0:.3f} s"
            + (f", first sweep {run.extra['sweep_seconds']:.1f} s" if "sweep_seconds" in run.extra else "")
            + (f"; {run.error}" if run.error else "")
        )

    with Bench(config.folder) as bench:
        client, filler = bench.redis(), Filler(bench.redis_server.url, bench.spool_url)
        note(LOWTIDE, 0, _lowtide(bench, filler, 0, 0, fine=False))
        base, held = _used_memory(client), 0
        for size in config.sizes:
            began = time.monotonic()
            _fill(bench, held, size)
            per_job = (_used_memory(client) - base) / size
            console.print(f"  {size - held:,} jobs put into the store in {time.monotonic() - began:.1f} s")
            held = size
            run = _lowtide(bench, filler, size, due, fine=False)
            run.extra["redis_bytes_per_job"] = per_job
            note(LOWTIDE, size, run)
        note(LOWTIDE_FINE, held, _lowtide(bench, filler, held, due, fine=True))

        client.flushall()
        countdown = Countdown(bench)
        with countdown.workers:
            note(COUNTDOWN, 0, countdown.measure(0, 0))
            base, held = _used_memory(client), 0
            pace = 0.0
            for size in config.sizes:
                if (expected := pace * (size - held)) > config.longest:
                    why = f"not run: about {expected:,.0f} s expected for sending, more than {config.longest:.0f} s"
                    console.print(f"  {COUNTDOWN}, {size:,}: {why}")
                    cases.append(Measured(COUNTDOWN, size, skipped=why).record())
                    continue
                began = time.monotonic()
                countdown.fill(held, size)
                pace = (time.monotonic() - began) / (size - held)
                per_job = (_used_memory(client) - base) / size
                console.print(f"  {size - held:,} messages sent and held in {time.monotonic() - began:.1f} s")
                held = size
                run = countdown.measure(size, due)
                run.extra["redis_bytes_per_job"] = per_job
                note(COUNTDOWN, size, run)
            # An orderly stop would wait until every message is returned to the queue.
            countdown.workers.child.kill()
    return {"sizes": list(config.sizes), "due": due, "rate": _RATE, "cases": cases}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found = Found(data)
    names = (LOWTIDE, LOWTIDE_FINE, COUNTDOWN)
    rows = [_row(found, case) for name in names for case in found.cases if case.name == name]
    size = max(data["sizes"])
    added = _peak(found, LOWTIDE, size) - _base(found, LOWTIDE)
    note = f"countdown: {_peak(found, COUNTDOWN, size) - _base(found, COUNTDOWN):.0f} MiB"
    bars = [at_most(f"waiting: MiB that {size:,} jobs add to a worker", added, 20, " MiB", note)]
    costs = ["largest process MiB", "added MiB", "idle CPU %", "Redis bytes a job"]
    columns = ["waiting", "how", *costs, "late p50 s", "late p99 s", "first sweep s", "remark"]
    notes = [
        f"Lateness of {data['due']} jobs that fell due at {data['rate']:.0f} a second. Idle CPU is that of the worker "
        "with its child, in percent of a core, between sweeps; a sweep comes every 300 s (default).",
    ]
    return Summary("Waiting", columns, rows, bars, notes)


def _row(found: Found, case: Measured) -> list[str]:
    if not case.runs:
        return [f"{case.size:,}", case.name, *("-",) * 7, case.skipped or ""]
    run = case.runs[0]
    peak, extra = run.peak("worker"), run.extra
    costs = [f"{peak:.0f}", f"{peak - _base(found, case.name):+.0f}", f"{extra['idle_percent']:.1f}"]
    redis_bytes = _number(extra.get("redis_bytes_per_job"), "{:,.0f}")
    late = [_number(extra[share], "{:.3f}") for share in ("p50", "p99")]
    sweep = _number(extra.get("sweep_seconds"), "{:.1f}")
    return [f"{case.size:,}", case.name, *costs, redis_bytes, *late, sweep, run.error or ""]


def _peak(found: Found, name: str, size: int) -> float:
    cases = (case for case in found.cases if (case.name, case.size) == (name, size) and case.runs)
    return next((case.runs[0].peak("worker") for case in cases), math.nan)


def _base(found: Found, name: str) -> float:
    return _peak(found, COUNTDOWN if name == COUNTDOWN else LOWTIDE, 0)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else form.format(value)
