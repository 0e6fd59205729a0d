"""Plain Celery with countdown: the usual way to poll a job later.

Each call notes its due time and the time at which it ran.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import IO

from celery import Celery

app = Celery("countdown", broker=os.environ.get("LOWTIDE_REDIS_URL", "memory://"))
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="countdown",
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 7 * 24 * 3600},
)


@cache
def _log() -> IO[str]:
    return (Path(os.environ["BENCH_COUNTS"]) / f"{os.getpid()}.txt").open("a", buffering=1)


@app.task(name="countdown.poll")
def poll(job: str, due: float) -> None:
    """Polls a job."""
    del job
    _log().write(f"{due!r} {time.time()!r}\n")
