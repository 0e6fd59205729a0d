"""CPU time of one stage: a segment is read, judged, priced, written and recorded. No other process is in the figure.

The whole fan-out is too noisy to compare two versions within a few percent. This runs the stages of one finished job in
this process, as a worker does, and counts the processor time of `deliver` alone, and Redis's own time for scripts. The
runs are repeated, and medians are shown. To compare two versions, take turns with `python -m benchmarks delivery`.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.fan_out import Prepared
from benchmarks.measure import median
from benchmarks.parts import console
from lowtide.protocol import Queue, Stage, arguments, keys
from lowtide_worker.host import tasks
from lowtide_worker.runtime import runtime
from lowtide_worker.state import Dispatch

_RUNS = 10
_MICRO = 1_000_000


class _Broker:
    """The messages of one process, in place of Celery."""

    def __init__(self) -> None:
        self.messages: list[tuple[Stage, dict[str, Any]]] = []

    def send(self, _: object, dispatches: Iterable[Dispatch]) -> None:
        """Keeps messages."""
        self.messages += [(stage, arguments(member, token)) for member, stage, token in dispatches]


def measure(sizes: Sequence[int]) -> None:
    """Prints the processor time of a row for each size, a number of rows."""
    logging.disable(logging.CRITICAL)
    broker = _Broker()
    vars(tasks).update(send=broker.send, pump=lambda *_: None)
    for rows in sizes:
        with (
            tempfile.TemporaryDirectory() as folder,
            servers.Bench(Path(folder) / "bench", answer_function="benchmarks.workload:long_answer") as bench,
        ):
            os.environ.update(servers.LOWTIDE_ENV | bench.env(LOWTIDE_DELETE_AT_PROVIDER="false"))
            runtime.cache_clear()
            prepared = Prepared(bench, rows)
            runs = [_run(prepared, broker) for _ in range(_RUNS)]
        worker, store = (median(each) / rows * _MICRO for each in zip(*runs, strict=True))
        console.print(f"deliver, {rows:,} rows: {worker:.2f} µs of a worker and {store:.3f} µs of Redis a row")


def _run(prepared: Prepared, broker: _Broker) -> tuple[float, float]:
    """Delivers the job once. Returns the seconds of `deliver`, and those of all scripts."""
    client, spent = prepared.put_back(""), 0.0
    client.zadd(keys.clock(Queue.JOBS), {keys.job_member(prepared.job): time.time()}, xx=True)
    client.config_resetstat()
    while not client.hget(keys.batch(prepared.batch_id), "finished"):
        for queue in Queue:
            broker.send(None, runtime().clock.claim(queue))
        while broker.messages:
            stage, message = broker.messages.pop(0)
            gc.collect()
            began = time.process_time()
            tasks.run(stage, message)
            spent += time.process_time() - began if stage is Stage.DELIVER else 0.0
        time.sleep(0.005)
    scripts: dict[str, Any] = client.info("commandstats").get("cmdstat_evalsha", {})
    return spent, scripts.get("usec", 0) / _MICRO
