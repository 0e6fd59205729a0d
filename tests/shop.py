"""A user's own Celery app, as the tests' shop: it records what its handlers were given in a file.

`SHOP_LOG` is the file, `SHOP_FAILS` how often each result fails before it is taken (by key prefix "flaky"). A result of
the prefix "deadly" ends its process by SIGKILL the first time. A second
file, with `.failures` at its end, has the tasks that Celery counts as failed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import task_failure

from lowtide import BatchStatus, Result, batch_handler, result_handler

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "memory://"))
app.conf.update(task_serializer="json", accept_content=["json"], worker_prefetch_multiplier=1)

LOG = Path(os.environ.get("SHOP_LOG", "/dev/null"))
FAILS = int(os.environ.get("SHOP_FAILS", "0"))


def _tries(key: str) -> int:
    if not LOG.exists():
        return 0
    return sum(json.loads(line)["key"] == key for line in LOG.read_text().splitlines())


def _take(result: Result) -> bool:
    """Keeps one line for a call; returns whether the shop is closed for this result."""
    deadly = result.key.startswith("deadly") and not _tries(result.key)
    fails = deadly or (result.key.startswith("flaky") and _tries(result.key) < FAILS)
    line = {"key": result.key, "text": result.text, "failed": fails, "batch": result.batch_id, "labels": result.labels}
    with LOG.open("a") as log:
        log.write(json.dumps(line) + "\n")
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return fails


@result_handler(app, name="shop.tasks.save_blurb")
def save_blurb(result: Result) -> None:
    """Keeps one line per call; a "flaky" key fails a few times first."""
    if _take(result):
        raise RuntimeError("the shop is closed")


@result_handler(app, name="shop.tasks.save_all", batched=True)
def save_all(results: list[Result]) -> None:
    """Keeps a line per result, and fails if one of them does."""
    closed = [_take(result) for result in results]
    if any(closed):
        raise RuntimeError(f"the shop is closed for {len(results)}")


@batch_handler(app, name="shop.tasks.done")
def done(status: BatchStatus) -> None:
    """Keeps a line per call; a batch with the label `flaky` fails a few times first."""
    fails = "flaky" in status.labels and _tries(status.id) < FAILS
    counts = {"total": status.total, "succeeded": status.succeeded, "tokens": status.usage.total_token_count}
    line = {"key": status.id, "state": status.state, "failed": fails, "labels": status.labels, **counts}
    with LOG.open("a") as log:
        log.write(json.dumps(line) + "\n")
    if fails:
        raise RuntimeError("the shop is closed")


@task_failure.connect
def note_failure(exception: BaseException, **_: Any) -> None:
    """Keeps a line per task that has failed."""
    with LOG.with_suffix(".failures").open("a") as failures:
        failures.write(f"{type(exception).__name__}: {exception}\n")
