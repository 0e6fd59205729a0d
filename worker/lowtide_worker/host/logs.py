"""The formatters of the worker's log, which keep secrets out of it, and foreign text from forging log lines.

Log lines contain text from providers, handlers and messages. Its line ends must not begin a new log line, and its
control characters must not reach the terminal of a reader.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.log import Logging as CeleryLogging
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter

from lowtide.redaction import redacted
from lowtide.text import on_one_line, printable


class Lines(ColorFormatter):
    """Writes each message on one line, and indents tracebacks so that none of their lines looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Returns the message as one line."""
        record.message = on_one_line(redacted(record.message))
        return str(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns the traceback, indented."""
        return "\n".join(f"  {line}" for line in printable(redacted(super().formatException(ei))).split("\n"))


class TaskLines(Lines, TaskFormatter):
    """The same formatter for the log lines of tasks."""


_FORMATTERS = {ColorFormatter: Lines, TaskFormatter: TaskLines}


class Logging(CeleryLogging):
    """Celery's logging setup, with these formatters in place of Celery's."""

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
        return super().setup_handlers(logger, logfile, format, colorize, _FORMATTERS.get(formatter, formatter), **more)
