"""A service of a user's with one handler: several of them share one Lowtide.

`SERVICE_TASK` names the handler, `SERVICE_QUEUE` is its option `queue`, `SERVICE_DEFAULT_QUEUE` that of the app, and
`SERVICE_LOG` the file that gets a line for each result. `SERVICE_ENDS` (`exit` or `die`) says how a result with the key
`ends` ends the process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from lowtide import Result, result_handler

TASK = os.environ.get("SERVICE_TASK", "service.save")

app = Celery("tasks", broker=os.environ.get("SERVICE_BROKER", "memory://"))
app.conf.update(task_serializer="json", accept_content=["json"])
if "SERVICE_DEFAULT_QUEUE" in os.environ:
    app.conf.task_default_queue = os.environ["SERVICE_DEFAULT_QUEUE"]
options: dict[str, Any] = {"queue": os.environ["SERVICE_QUEUE"]} if "SERVICE_QUEUE" in os.environ else {}


@result_handler(app, name=TASK, **options)
def save(result: Result) -> None:
    """Notes the key."""
    with Path(os.environ["SERVICE_LOG"]).open("a") as log:
        log.write(f"{result.key}\n")
    if result.key == "ends" and os.environ.get("SERVICE_ENDS") == "exit":
        sys.exit("the service gives up")
    if result.key == "ends" and os.environ.get("SERVICE_ENDS") == "die":
        os._exit(139)
