"""A plain Celery application with one message per result, as most services write it first.

Early acknowledgement, JSON and no result backend are the cheapest settings.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from celery import Celery

from benchmarks.servers import Counter

app = Celery("per_result", broker=os.environ["LOWTIDE_REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="per-result",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=64,
)


@cache
def _slot() -> memoryview:
    return Counter(Path(os.environ["BENCH_COUNTS"])).slot()


@app.task(name="per_result.handle")
def handle(key: str, text: str) -> None:
    """Counts one result and does nothing else."""
    del key, text
    _slot()[0] += 1
