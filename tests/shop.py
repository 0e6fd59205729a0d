"""A user's own Celery app, as the tests' shop: it records what its handlers were given in a file.

`SHOP_LOG` is the file, `SHOP_FAILS` how often each result fails before it is taken (by key prefix "flaky").
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery

from lowtide import Result, result_handler

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "memory://"))
app.conf.update(task_serializer="json", accept_content=["json"], worker_prefetch_multiplier=1)

LOG = Path(os.environ.get("SHOP_LOG", "/dev/null"))
FAILS = int(os.environ.get("SHOP_FAILS", "0"))


def _tries(key: str) -> int:
    if not LOG.exists():
        return 0
    return sum(json.loads(line)["key"] == key for line in LOG.read_text().splitlines())


@result_handler(app, name="shop.tasks.save_blurb")
def save_blurb(result: Result) -> None:
    """Keeps one line per call; a "flaky" key fails a few times first."""
    fails = result.key.startswith("flaky") and _tries(result.key) < FAILS
    with LOG.open("a") as log:
        log.write(json.dumps({"key": result.key, "text": result.text, "failed": fails}) + "\n")
    if fails:
        raise RuntimeError("the shop is closed")
