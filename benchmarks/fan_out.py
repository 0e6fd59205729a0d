"""Part 2, fan-out alone: from a job that the provider has finished to the delivery of the last result.

One batch is brought to a finished provider job once, and its state in Redis is saved. Every run restores that state,
with another handler, and sets the job's poll to now. The clock runs from there: poll, collect, deliver, hand over. So
every run reads the same provider file, and the time before it is not measured.

The floor streams the same file from the same emulator in one process and parses each line with orjson, and does nothing
else. One message per result is too slow for the whole file: it gets the first rows, and its rate is compared.

A result is delivered when it is stored and counted; when the webhook answered 200; when the stream has the entry; when
the user's Celery task was called with it (its two worker processes share the machine with Lowtide's).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import redis

from benchmarks import end_to_end, workload
from benchmarks.measure import MIB, Run, Watch, median, warm_memory
from benchmarks.parts import Case, Config, Found, Summary, at_least, at_most, console, ratio, take_turns
from benchmarks.servers import Bench, Contender, Counter, Workers
from lowtide import Request
from lowtide.protocol import BatchFiles, Queue, Stage, job_id, keys
from lowtide_cli.local import free_port

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
_SECRET = "whsec_" + "bG93dGlkZS1iZW5jaC1zZWNyZXQtMDEyMzQ1Njc4"  # invented
_FOR_EVER = "1000000"
_POLL_SECONDS = 0.02


class Prepared:
    """A batch whose only job is finished at the provider, with its state in Redis at that time."""

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
        """Restores the batch. The next stage of its job is a poll, far in the future."""
        client = self.bench.redis()
        client.flushall()
        files = BatchFiles(self.batch_id)
        for folder in (files.results, f"{files.folder}/jobs"):
            shutil.rmtree(Path(self.bench.spool_url) / folder, ignore_errors=True)
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
    """Runs a local endpoint. Yields its URL, the workers' settings for it, and its process id."""
    port = free_port()
    with bench.server("webhook", ["benchmarks.http_server", str(port)], port) as server:
        url = f"http://127.0.0.1:{port}/hooks/results"
        env = {
            "LOWTIDE_WEBHOOK_SECRETS": json.dumps({url: _SECRET}),
            "LOWTIDE_WEBHOOK_ALLOW_PRIVATE": "true",
            "LOWTIDE_WEBHOOK_ALLOW_HTTP": "true",
        }
        yield url, env, server.process.pid


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
    """Waits for the last result. Returns the time at which each stage began, and the error if there was one."""
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
        time.sleep(_POLL_SECONDS)


def measure(config: Config) -> dict[str, Any]:
    """Runs the part. Its sizes are MiB of result file."""
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
    rows = [_row(found, name, size) for size in data["sizes"] for name in NAMES]
    size = max(data["sizes"])
    stored = found.rate(STORED_2, size)
    handlers = (STORED_1, STORED_2, CELERY, WEBHOOK, STREAM)
    peaks = (run.peak("worker", "handler") for name in handlers for run in found.good(name, size))
    over_floor, over_messages = ratio(stored, found.rate(FLOOR, size)), ratio(stored, found.rate(PER_RESULT, size))
    where = f"fan-out, {size:,} rows: stored results"
    bars = [
        at_least(f"{where} with 2 worker processes over the floor", over_floor, 0.6, "x", "aim: 1.0"),
        at_least(f"{where} over one message per result", over_messages, 20, "x"),
        at_most("fan-out: largest process of ours", max(peaks, default=math.nan), 200, " MiB"),
    ]
    columns = ["rows", "handler", "s", "rows/s", "MiB/s", "of the floor", "peak MiB of a process", "runs", "remark"]
    notes = [
        f"A result line has {_row_bytes(found, size):.0f} bytes.",
        f"Stages of the last run with stored results and 2 worker processes, seconds after the start: "
        f"{_phases(found, size)}.",
    ]
    return Summary("Fan-out alone", columns, rows, bars, notes)


def _row(found: Found, name: str, size: int) -> list[str]:
    good = found.good(name, size)
    if not good:
        return [f"{size:,}", name, "-", "-", "-", "-", "-", "0", (found.why(name, size) or "")[:160]]
    rate = found.rate(name, size)
    mib, of_floor = rate * _row_bytes(found, size) / MIB, rate / found.rate(FLOOR, size)
    peak = found.peak(name, size, "contender", "worker", "handler")
    figures = [f"{found.seconds(name, size):.2f}", f"{rate:,.0f}", f"{mib:,.0f}", f"{of_floor:.2f}", f"{peak:.0f}"]
    remark = f"first {good[0].rows:,} rows" if good[0].rows != size else ""
    return [f"{size:,}", name, *figures, str(len(good)), remark]


def _row_bytes(found: Found, size: int) -> float:
    return median(run.extra["characters"] / run.rows for run in found.good(FLOOR, size))


def _phases(found: Found, size: int) -> str:
    good = found.good(STORED_2, size)
    return ", ".join(f"{stage} {at:.2f}" for stage, at in good[-1].extra["phases"].items()) if good else "none"
