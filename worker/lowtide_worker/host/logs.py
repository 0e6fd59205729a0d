"""The formatters of the worker's log, as text or JSON: without secrets, and without lines forged by foreign text.

Log lines contain text from providers, handlers and messages. Its line ends must not begin a new log line, and its
control characters must not reach the terminal of a reader.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from celery.app import trace
from celery.app.log import Logging as CeleryLogging
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter, mlevel

from lowtide import tracing
from lowtide.protocol import Stage, split_job_id
from lowtide.redaction import redacted
from lowtide.text import on_one_line, printable
from lowtide_worker.events import Event, Fields, stage_fields
from lowtide_worker.runtime import runtime
from lowtide_worker.settings import LogFormat

_CELERYS = {trace.LOG_RECEIVED: Event.STAGE_RECEIVED, trace.LOG_SUCCESS: Event.STAGE_DONE}
"""The events of lines that Celery writes about tasks."""
_STAGES = frozenset(Stage)
_QUIET = ("celery.worker.strategy", "celery.app.trace", "httpx", "httpx2")
"""Loggers with two lines for each run of a stage, and one for each call of the provider. Only their warnings matter to
those who operate workers; the others are logged by a worker that logs debug messages."""
_SHOWN_ID = re.compile(r"'(batch_id|job_id|seg)': '?([\w-]+)")


def _fields(record: logging.LogRecord) -> Fields:
    """The event of a line, and the ids and the stage that it belongs to."""
    fields = {"event": getattr(record, "event", None) or Event.OTHER.value, **stage_fields()}
    # Celery's lines about a task carry these data.
    data = getattr(record, "data", None)
    event = _CELERYS.get(record.msg) if isinstance(record.msg, str) else None
    if event is None or not isinstance(data, dict) or data.get("name") not in _STAGES:
        return fields
    fields |= {"event": event.value, "stage": str(data["name"]), **_shown_ids(str(data.get("kwargs")))}
    return fields


def _shown_ids(arguments: str) -> Fields:
    """The ids in the arguments of a task, as messages show them: see `lowtide.protocol.shown`."""
    found: Fields = {}
    for name, value in _SHOWN_ID.findall(arguments):
        if name == "seg":
            found["segment"] = int(value) if value.isdecimal() else value
        else:
            found[name] = value
    if "job_id" in found and "batch_id" not in found:
        try:
            found["batch_id"] = split_job_id(str(found["job_id"]))[0]
        except ValueError:
            del found["job_id"]
    return found


class Lines(ColorFormatter):
    """Writes each message on one line, and indents tracebacks so that none of their lines looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Returns the message as one line, with its event and its ids at the end."""
        record.message = on_one_line(redacted(record.message))
        fields = _fields(record)
        if fields == {"event": Event.OTHER.value}:
            return str(super().formatMessage(record))
        named = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{super().formatMessage(record)} [{printable(named)}]"

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns the traceback, indented."""
        return "\n".join(f"  {line}" for line in printable(redacted(super().formatException(ei))).split("\n"))


class TaskLines(Lines, TaskFormatter):
    """The same formatter for the log lines of tasks."""


class JsonLines(logging.Formatter):
    """Writes each message as one JSON object, in ASCII, so that no character of it can end the line."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Returns the object."""
        found: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **_fields(record),
            "logger": record.name,
            "process": record.processName,
        }
        if span := tracing.current():
            _, found["trace_id"], found["span_id"], _ = span["traceparent"].split("-")
        data = getattr(record, "data", None)
        if isinstance(data, dict) and isinstance(data.get("runtime"), (int, float)):
            found["duration"] = round(data["runtime"], 6)
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found, default=repr)


_FORMATTERS = {ColorFormatter: Lines, TaskFormatter: TaskLines}


class Logging(CeleryLogging):
    """Celery's logging setup, with these formatters in place of Celery's, and without a line for each task."""

    def setup_logging_subsystem(self, loglevel: Any = None, *given: Any, **more: Any) -> Any:
        """Sets up the log of a worker."""
        found = super().setup_logging_subsystem(loglevel, *given, **more)
        if mlevel(loglevel or self.loglevel) > logging.DEBUG:
            for name in _QUIET:
                logging.getLogger(name).setLevel(logging.WARNING)
        return found

    def setup_handlers(
        self,
        logger: Any,
        logfile: Any,
        format: Any,  # noqa: A002 - Celery's name
        colorize: Any,
        formatter: Any = ColorFormatter,
        **more: Any,
    ) -> Any:
        """Adds a handler with one of these formatters to a logger."""
        as_json = runtime().settings.log_format is LogFormat.JSON
        own = JsonLines if as_json else _FORMATTERS.get(formatter, formatter)
        return super().setup_handlers(logger, logfile, format, colorize, own, **more)
