"""Webhooks of the provider beside polling: how late the first result is, and how often the provider is asked.

`make bench ARGS="webhooks --sizes 200"` runs so many jobs with webhooks, and a fifth as many by polling alone. All
times are a twentieth of the defaults, but for the clock's tick: a job takes 30 seconds in place of ten minutes, is
polled for the first time after 1.5 seconds and at least every 30 seconds, and with webhooks every 45 seconds. Submits
are spread over the time of one job. Fewer jobs are polled, because many that are due in one second would share pages of
the provider's list, as jobs do not at twenty times these times.

Lateness is the time from a job's end at the emulator until its results are in the stream of a handler. Calls are those
that ask for the state of a job, or list jobs. The hooks application is a process of its own, and each event a request.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.measure import percentile
from benchmarks.servers import Bench, Workers
from lowtide import Request
from lowtide.protocol import job_of_display_name, keys, split_job_id
from lowtide_cli.local import free_port

_MODEL = "gemini-3.5-flash"
_RUNNING_SECONDS = 30.0
_TIMES = {
    "LOWTIDE_POLL_FIRST_SECONDS": "1.5",
    "LOWTIDE_POLL_MAX_SECONDS": "30",
    "LOWTIDE_POLL_FACTOR": "1.5",
    "LOWTIDE_POLL_WITH_WEBHOOK_SECONDS": "45",
    "LOWTIDE_CLOCK_TICK_SECONDS": "1",
}
_STREAM = "bench"
_POLLED_SHARE = 5
_LOOK_SECONDS = 0.5
_WARM_REQUESTS, _FORGED_REQUESTS, _SENDERS = 200, 8_000, 4
_ASKING = ("batches.get", "batches.list")


class Figures(NamedTuple):
    """The figures of one run."""

    jobs: int
    late: list[float]
    """By job, in seconds, ascending."""
    calls: float
    """Calls to the provider for each job that ask for a state."""
    all_calls: float
    """All calls to the provider for each job."""
    by_name: dict[str, float]
    """Calls to the provider for each job, by name."""
    events: int
    """Requests to the hooks application."""


def _run(folder: Path, count: int, *, webhooks: bool) -> Figures:
    port = free_port()
    env = dict(_TIMES)
    if webhooks:
        env["LOWTIDE_WEBHOOK_URL"] = f"http://127.0.0.1:{port}/gemini"
    with Bench(folder, running_seconds=_RUNNING_SECONDS) as bench, ExitStack() as servers:
        if webhooks:
            keys_url = f"{bench.emulator_url}/.well-known/jwks.json"
            command = ["lowtide_cli", "hooks", "serve", "--port", str(port)]
            own = {"LOWTIDE_HOOKS_KEYS_URL": keys_url, "LOWTIDE_WEBHOOK_URL": env["LOWTIDE_WEBHOOK_URL"]}
            servers.enter_context(bench.server("hooks", command, port, **own))
        servers.enter_context(Workers(bench, "lowtide_worker", 8, options=("-P", "threads"), env=env))
        queue = bench.queue()
        # It warms the worker. With its event, polls become rare.
        queue.submit([Request(key="first", contents="Hello")], model=_MODEL).wait(timeout=300)
        before = bench.stats()["calls"]
        batches = set()
        for number in range(count):
            request = Request(key="k", contents=f"Describe article {number}.")
            batches.add(queue.submit([request], model=_MODEL, on_result=f"stream://{_STREAM}").id)
            time.sleep(_RUNNING_SECONDS / count)
        delivered = _delivered(bench, batches)
        after = bench.stats()["calls"]
        made = {name: after[name] - before.get(name, 0) for name in after}
        ended = _ended(bench)
        late = sorted(delivered[batch] - ended[batch] for batch in batches)
        events = made.pop("webhooks.send", 0)
        by_name = {name: number / count for name, number in sorted(made.items()) if number}
        asking = sum(by_name.get(name, 0) for name in _ASKING)
        return Figures(count, late, asking, sum(by_name.values()), by_name, events)


def _delivered(bench: Bench, batches: set[str]) -> dict[str, float]:
    """When the first results of each batch came into the stream, in Unix seconds."""
    found: dict[str, float] = {}
    while not batches <= found.keys():
        time.sleep(_LOOK_SECONDS)
        entries: Any = bench.redis().xrange(keys.stream(_STREAM))
        for identity, fields in entries:
            found.setdefault(fields[b"batch_id"].decode(), int(identity.partition(b"-")[0]) / 1000)
    return found


def _ended(bench: Bench) -> dict[str, float]:
    """When each batch's job ended at the emulator, in Unix seconds."""
    installation: Any = bench.redis().get(keys.INSTALLATION)
    names = {
        job_of_display_name(job["display_name"], installation.decode().partition(" ")[0]): job["ended"]
        for job in bench.jobs()
    }
    return {split_job_id(name)[0]: ended for name, ended in names.items() if name}


def _show(name: str, found: Figures) -> None:
    median, high, most = (percentile(found.late, share) for share in (0.5, 0.99, 1.0))
    print(
        f"{name}: {found.jobs:,} jobs; late p50 {median:.2f} s, p99 {high:.2f} s, most {most:.2f} s; calls a job that "
        f"ask for a state {found.calls:.2f}, all calls a job {found.all_calls:.2f}; events {found.events:,}",
        flush=True,
    )
    print("    " + ", ".join(f"{name} {number:.2f}" for name, number in found.by_name.items()), flush=True)


def _flood(folder: Path) -> None:
    """Sends forged events to the hooks application, and prints how fast it refuses them, and what memory they cost."""
    port = free_port()
    with Bench(folder) as bench, ExitStack() as servers:
        own = {"LOWTIDE_HOOKS_SECRETS": json.dumps(["whsec_" + base64.b64encode(bytes(32)).decode()])}
        command = ["lowtide_cli", "hooks", "serve", "--port", str(port)]
        process = psutil.Process(servers.enter_context(bench.server("hooks", command, port, **own)).pid)
        _forged(port, _WARM_REQUESTS)
        memory, began = process.memory_info().rss, time.perf_counter()
        with ThreadPoolExecutor(_SENDERS) as senders:
            parts = list(senders.map(_forged, [port] * _SENDERS, [_FORGED_REQUESTS // _SENDERS] * _SENDERS))
        took, grown = time.perf_counter() - began, process.memory_info().rss - memory
        answers = sorted(seconds for part in parts for seconds in part)
        written = bench.redis().dbsize()
    print(
        f"forged events: {len(answers) / took:,.0f}/s refused, p50 {1000 * percentile(answers, 0.5):.1f} ms, "
        f"p99 {1000 * percentile(answers, 0.99):.1f} ms; memory added {grown / 2**20:.1f} MiB; "
        f"keys written to Redis {written}",
        flush=True,
    )


def _forged(port: int, count: int) -> list[float]:
    """Posts forged events over one connection; returns the time of each answer, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"type": "batch.succeeded", "data": {"id": "batch_1"}}).encode()
    taken = []
    for number in range(count):
        headers = {"webhook-id": f"evt-{number}", "webhook-timestamp": str(int(time.time()))}
        began = time.perf_counter()
        connection.request("POST", "/gemini", body, headers | {"webhook-signature": f"v1,{'A' * 43}="})
        response = connection.getresponse()
        response.read()
        taken.append(time.perf_counter() - began)
        if response.status != 401:
            raise ValueError(f"a forged event was answered {response.status}")
    connection.close()
    return taken


def measure(counts: Sequence[int]) -> None:
    """Runs both for each number of jobs, and prints the figures."""
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as name:
        _flood(Path(name) / "flood")
        for count in counts:
            told = _run(Path(name) / "webhooks", count, webhooks=True)
            _show("webhooks", told)
            polled = _run(Path(name) / "polling", max(1, count // _POLLED_SHARE), webhooks=False)
            _show("polling alone", polled)
            print(
                f"polling alone beside webhooks: {polled.calls / told.calls:.1f} times as many calls that ask for a "
                f"state, {polled.all_calls / told.all_calls:.1f} times as many in all"
            )


if __name__ == "__main__":
    measure([int(count) for count in sys.argv[1:]] or [200])
