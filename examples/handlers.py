"""A Celery app of your own whose task takes the results: celery -A handlers worker -E -n handlers@%h

Run it in this folder. It keeps each answer as a file, so taking a result twice does no harm.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from celery import Celery

from lowtide import Result, Settings, result_handler

app = Celery("handlers")
app.conf.update(Settings().broker_config())
app.conf.task_serializer = "json"

ANSWERS = Path("answers")


@result_handler(app, name="handlers.save")
def save(result: Result) -> None:
    """Keeps one answer, or the reason why there is none."""
    ANSWERS.mkdir(exist_ok=True)
    name = sha256(result.key.encode()).hexdigest()[:16]
    text = result.text if result.error is None else f"{result.status}: {result.error.reason}"
    (ANSWERS / f"{name}.txt").write_text(f"{result.key}\n{text}\n")
