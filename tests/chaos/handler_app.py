"""A user's own Celery app that writes down every delivery it gets, every result in it and every batch event.

`HANDLER_LOG` is the file. A key that begins with "flaky" is refused the first time it comes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import task_prerun

from lowtide import BatchStatus, Result, batch_handler, result_handler

HANDLER = "shop.save"
NOTIFIED = "shop.done"
LOG = Path(os.environ.get("HANDLER_LOG", "/dev/null"))

app = Celery("shop", broker=os.environ.get("HANDLER_BROKER", "memory://"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    broker_transport="lowtide_worker.transport:Transport",
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("HANDLER_VISIBILITY", "900")),
        "unacked_restore_throttle": 1,
    },
)


def _write(**line: object) -> None:
    with LOG.open("ab", buffering=0) as log:
        log.write(json.dumps(line).encode() + b"\n")


@task_prerun.connect
def _note_delivery(kwargs: Any = None, **signal: object) -> None:
    if "results" in kwargs:
        _write(delivery=kwargs["delivery_id"], results=kwargs["results"], batch=kwargs["batch_id"])


@result_handler(app, name=HANDLER)
def save(result: Result) -> None:
    """Takes a result, unless it is a flaky one that comes for the first time."""
    again = not result.key.startswith("flaky") or f'"refused": "{result.key}"' in LOG.read_text()
    _write(**{"taken" if again else "refused": result.key})
    if not again:
        raise RuntimeError("not now")


@batch_handler(app, name=NOTIFIED)
def done(status: BatchStatus) -> None:
    """Takes the event of a batch's end."""
    _write(ended=status.id, state=status.state, settled=status.settled)
