"""A user's Celery application for the fan-out part: its handler counts the results, one by one."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from celery import Celery

from benchmarks.servers import Counter
from lowtide import Result, result_handler

app = Celery("shop", broker=os.environ["LOWTIDE_REDIS_URL"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@cache
def _slot() -> memoryview:
    return Counter(Path(os.environ["BENCH_COUNTS"])).slot()


@result_handler(app, name="shop.take")
def take(result: Result) -> None:
    """Counts one result."""
    del result
    _slot()[0] += 1
