"""Part 2, fan-out alone: from a job that the provider has finished to the last result handed over.

One batch is brought to a finished provider job once; its place in Redis is kept, and every run puts it back to "due to
be polled", with another handler. The clock runs from the moment it is due: poll, collect, deliver, hand over. So every
run reads the same provider file, and nothing before it is measured.

The floor streams the same file from the same emulator in one process and parses each line with orjson, and does nothing
else. One message per result is too slow for the whole file: it gets the first rows, and its rate is compared.

Handed over means: stored and counted; the webhook answered 200; the stream has the entry; the user's Celery task was
called with the result (its two worker processes share the machine with Lowtide's).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import httpx
import redis

from benchmarks import end_to_end, workload
from benchmarks.measure import MIB, Run, Watch, median, warm_memory
from benchmarks.parts import Bar, Case, Config, Found, Summary, console, ratio, take_turns
from benchmarks.servers import ROOT, Bench, Contender, Counter, Workers
from lowtide import Request
from lowtide.protocol import BatchFiles, Queue, Stage, job_id, keys
from lowtide_cli.local import Child, free_port

NAME = "fan_out"
FLOOR = "floor: download and orjson"
STORED_1 = "stored results, 1 worker process"
STORED_2 = "stored results, 2 worker processes"
CELERY = "Celery handler, 2 + 2 worker processes"
WEBHOOK = "webhook, 2 worker processes"
STREAM = "stream, 2 worker processes"
PER_RESULT = "Celery, a message per result"
NAMES = (FLOOR, STORED_1, STORED_2, CELERY, WEBHOOK, STREAM, PER_RESULT)
_PER_RESULT_ROWS = 5_000
_SECRET = "whsec_" + "bG93dGlkZS1iZW5jaC1zZWNyZXQtMDEyMzQ1Njc4"  # a made-up one
_FOR_EVER = "1000000"
_LOOK_SECONDS = 0.02


class Prepared:
    """A batch whose only job is finished at the provider, and how it lay in Redis then."""

    def __init__(self, bench: Bench, rows: int) -> None:
        self.bench, self.rows = bench, rows
        env = {
            "LOWTIDE_POLL_FIRST_SECONDS": _FOR_EVER,
            "LOWTIDE_POLL_MAX_SECONDS": _FOR_EVER,
            "LOWTIDE_MAX_REQUESTS_PER_JOB": str(rows),
        }
        client = bench.redis()
        with Workers(bench, "lowtide_worker", 1, env=env):
            requests = (Request(key=key, contents=text) for key, text in workload.prompts(rows))
            self.batch_id = bench.queue().submit(requests, model=workload.MODEL).id
            self.job = job_id(self.batch_id, 1)
            while client.hget(keys.job(self.job), "stage") != Stage.POLL.encode():
                time.sleep(0.1)
            while [job["state"] for job in bench.jobs()] != ["SUCCEEDED"]:
                time.sleep(0.1)
        name = cast("bytes", client.hget(keys.job(self.job), "name")).decode()
        self.file = f"files/batch-{name.removeprefix('batches/')}"
        kept = [*_ours(client, self.batch_id), keys.INSTALLATION.encode()]
        self._dump = {key: client.dump(key) for key in kept}

    def put_back(self, on_result: str) -> redis.Redis:
        """Puts the batch back to where its job is polled next, far in the future."""
        client = self.bench.redis()
        client.flushall()
        files = BatchFiles(self.batch_id)
        for folder in (files.results, f"{files.folder}/jobs"):
            shutil.rmtree(self.bench.spool / folder, ignore_errors=True)
        for key, value in self._dump.items():
            client.restore(key, 0, cast("bytes", value))
        client.hset(keys.batch(self.batch_id), "on_result", on_result)
        return client


def _ours(client: redis.Redis, batch_id: str) -> Iterator[bytes]:
    for key in client.scan_iter(f"{keys.PREFIX}*", count=1000):
        if batch_id.encode() in key or key.startswith((keys.BATCHES.encode(), f"{keys.PREFIX}clock".encode())):
            yield key


@contextmanager
def _webhook(bench: Bench) -> Iterator[tuple[str, dict[str, str], int]]:
    """A local endpoint; gives its URL, the workers' settings for it, and its process id."""
    import sys

    port = free_port()
    child = Child(
        "webhook", [sys.executable, "-m", "benchmarks.http_server", str(port)],
        log=bench.folder / "webhook.log", env=bench.env(), cwd=ROOT,
    )  # fmt: skip
    child.start()
    try:
        child.wait_for_port(port)
        url = f"http://127.0.0.1:{port}/hooks/results"
        env = {
            "LOWTIDE_WEBHOOK_SECRETS": json.dumps({url: _SECRET}),
            "LOWTIDE_WEBHOOK_ALLOW_PRIVATE": "true",
            "LOWTIDE_WEBHOOK_ALLOW_HTTP": "true",
        }
        yield url, env, child.pid or 0
    finally:
        child.stop()


def _lowtide(prepared: Prepared, handler: str, processes: int, timeout: float) -> Run:
    bench = prepared.bench
    counter = Counter(bench.folder / "handled")
    counter.clear()
    env = {"LOWTIDE_DELETE_AT_PROVIDER": "false", "BENCH_COUNTS": str(bench.folder / "handled")}
    watched: dict[str, int] = {}
    url = ""
    with ExitStack() as stack:
        on_result = {"celery": "shop.take@celery", "stream": "stream://bench"}.get(handler, "")
        if handler == "webhook":
            on_result, more, watched["webhook"] = stack.enter_context(_webhook(bench))
            url, env = on_result, env | more
        client = prepared.put_back(on_result)
        workers = stack.enter_context(Workers(bench, "lowtide_worker", processes, env=env))
        workers.warm_up()
        watched["worker"] = workers.pid
        if handler == "celery":
            user = Workers(bench, "benchmarks.handler_app", 2, role="handler", options=("-Q", "celery"), env=env)
            watched["handler"] = stack.enter_context(user).pid
        before = bench.stats()
        watch = Watch({**bench.pids, **watched})
        warm_memory(prepared.rows)
        watch.start()
        began = time.monotonic()
        client.zadd(keys.clock(Queue.JOBS), {keys.job_member(prepared.job): time.time()}, xx=True)
        phases, error = _until_done(prepared, client, counter if handler == "celery" else None, began, timeout)
        seconds = time.monotonic() - began
        uses = watch.stop()
        after = bench.stats()
        extra: dict[str, Any] = {
            "phases": phases,
            "emulator_busy_seconds": after["busy_seconds"] - before["busy_seconds"],
        }
        if url:
            extra["webhook"] = httpx.get(url.replace("/hooks/results", "/_seen")).json()
    return Run(seconds, prepared.rows, error, uses, extra)


def _until_done(
    prepared: Prepared, client: redis.Redis, counter: Counter | None, began: float, timeout: float
) -> tuple[dict[str, float], str | None]:
    """Waits for the last result; returns when the job left each stage, and what went wrong."""
    phases: dict[str, float] = {}
    stage = ""
    while True:
        now = cast("bytes | None", client.hget(keys.job(prepared.job), "stage"))
        if now is not None and now.decode() != stage:
            stage = now.decode()
            phases[f"{stage} from"] = round(time.monotonic() - began, 3)
        fields = client.hmget(keys.batch(prepared.batch_id), "finished", "undelivered", "parked", "succeeded")
        finished, undelivered, parked, succeeded = (int(float(value or 0)) for value in cast("list[bytes]", fields))
        if parked:
            return phases, f"{parked} segments were parked"
        if finished and not undelivered and (counter is None or counter.total() >= prepared.rows):
            return phases, None if succeeded == prepared.rows else f"{succeeded} of {prepared.rows} succeeded"
        if time.monotonic() - began > timeout:
            return phases, f"not done after {timeout:.0f} s, {succeeded} of {prepared.rows} stored"
        time.sleep(_LOOK_SECONDS)


def measure(config: Config) -> dict[str, Any]:
    """Runs the part; sizes are MiB of result file."""
    timeout = 2 * config.longest
    found: list[dict[str, Any]] = []
    sizes: list[int] = []
    for mib in config.sizes:
        rows = mib * MIB // workload.ROW_BYTES
        sizes.append(rows)
        with Bench(config.folder, answer_function="benchmarks.workload:long_answer") as bench:
            console.print(f"  preparing a finished job with {rows:,} rows")
            began = time.monotonic()
            prepared = Prepared(bench, rows)
            console.print(f"  prepared in {time.monotonic() - began:.1f} s")
            few = min(rows, _PER_RESULT_ROWS)

            def floor(prepared: Prepared = prepared, rows: int = rows) -> Run:
                return Contender(prepared.bench, "run_floor", rows, option=prepared.file).run(timeout, {})

            def each(prepared: Prepared = prepared, few: int = few) -> Run:
                return end_to_end.per_result(prepared.bench, few, timeout, file=prepared.file)

            cases = [
                Case(FLOOR, rows, work=floor),
                Case(STORED_2, rows, work=partial(_lowtide, prepared, "stored", 2, timeout)),
                Case(STORED_1, rows, work=partial(_lowtide, prepared, "stored", 1, timeout)),
                Case(CELERY, rows, work=partial(_lowtide, prepared, "celery", 2, timeout)),
                Case(WEBHOOK, rows, work=partial(_lowtide, prepared, "webhook", 2, timeout)),
                Case(STREAM, rows, work=partial(_lowtide, prepared, "stream", 2, timeout)),
                Case(PER_RESULT, rows, work=each),
            ]
            found += take_turns(cases, config)
    return {"sizes": sizes, "cases": found}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found = Found(data)
    rows, bars = [], []
    for size in data["sizes"]:
        row_bytes = median(run.extra["characters"] / run.rows for run in found.good(FLOOR, size))
        floor = found.rate(FLOOR, size)
        for name in NAMES:
            good = found.good(name, size)
            if not good:
                rows.append([f"{size:,}", name, "-", "-", "-", "-", "-", "0", (found.why(name, size) or "")[:160]])
                continue
            rate = found.rate(name, size)
            rows.append([
                f"{size:,}", name, f"{found.seconds(name, size):.2f}", f"{rate:,.0f}",
                f"{rate * row_bytes / MIB:,.0f}", f"{rate / floor:.2f}",
                f"{found.peak(name, size, 'contender', 'worker', 'handler'):.0f}", str(len(good)),
                f"first {good[0].rows:,} rows" if good[0].rows != size else "",
            ])  # fmt: skip
    size = max(data["sizes"])
    stored = found.rate(STORED_2, size)
    largest = max((run.peak("worker", "handler") for name in (STORED_1, STORED_2, CELERY, WEBHOOK, STREAM)
                   for run in found.good(name, size)), default=float("nan"))  # fmt: skip
    bars = [
        Bar(f"fan-out, {size:,} rows: stored results with 2 worker processes over the floor",
            ratio(stored, found.rate(FLOOR, size)), 0.6, True, "x", note="aim: 1.0"),
        Bar(f"fan-out, {size:,} rows: stored results over one message per result",
            ratio(stored, found.rate(PER_RESULT, size)), 20, True, "x"),
        Bar("fan-out: largest process of ours", largest, 200, False, " MiB"),
    ]  # fmt: skip
    columns = ["rows", "handler", "s", "rows/s", "MiB/s", "of the floor", "peak MiB of a process", "runs", "remark"]
    notes = [
        f"A result line has {median(run.extra['characters'] / run.rows for run in found.good(FLOOR, size)):.0f} bytes.",
        f"Stages of the last run with stored results and 2 worker processes, seconds after the start: "
        f"{_phases(found, size)}.",
    ]
    return Summary("Fan-out alone", columns, rows, bars, notes)


def _phases(found: Found, size: int) -> str:
    good = found.good(STORED_2, size)
    return ", ".join(f"{stage} {at:.2f}" for stage, at in good[-1].extra["phases"].items()) if good else "none"
