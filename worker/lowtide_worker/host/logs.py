"""The worker's log, in which nobody else can write lines.

What a provider, a handler or a message says stands in log lines too. Its line ends and control characters must neither
make a line of their own nor reach the terminal of whoever reads the log.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.log import Logging as CeleryLogging
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter

from lowtide.text import on_one_line, printable


class Lines(ColorFormatter):
    """Keeps each message on its line; a traceback is set in, so that none of its lines looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line."""
        record.message = on_one_line(record.message)
        return str(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return "\n".join(f"  {line}" for line in printable(super().formatException(ei)).split("\n"))


class TaskLines(Lines, TaskFormatter):
    """The same for what tasks log."""


_OURS = {ColorFormatter: Lines, TaskFormatter: TaskLines}


class Logging(CeleryLogging):
    """Celery's, with these formatters in place of its own."""

    def setup_handlers(
        self,
        logger: Any,
        logfile: Any,
        format: Any,  # noqa: A002 - Celery's name
        colorize: Any,
        formatter: Any = ColorFormatter,
        **more: Any,
    ) -> Any:
        """Gives a logger its handler."""
        return super().setup_handlers(logger, logfile, format, colorize, _OURS.get(formatter, formatter), **more)
