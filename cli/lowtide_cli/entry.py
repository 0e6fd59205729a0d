"""The entry point: it runs the command line and prints an expected error as one line."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from types import FrameType
from typing import NoReturn

from lowtide_cli.app import app
from lowtide_cli.terminal import Exit, WrongUsage, bad_argument, discard_output, one_line, prepare_streams, report

_FINALIZER_SECONDS = 0.01
"""Time in which a finalizer ends."""


def main() -> None:
    """Runs the command line. Prints an expected error as one line on standard error."""
    _unwind_on_signals()
    try:
        prepare_streams()
        if problem := bad_argument(sys.argv[1:]):
            _end(problem, Exit.USAGE)
        try:
            app(prog_name="lowtide")
        finally:
            # A full disk is an expected error here. When the process ends it would be a traceback.
            sys.stdout.flush()
    except BrokenPipeError:
        # `lowtide results ... | head` is not an error to report.
        discard_output()
        sys.exit(Exit.ERROR)
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        discard_output()
        _end(line, Exit.USAGE if isinstance(error, WrongUsage) else Exit.ERROR)


def _unwind_on_signals() -> None:
    """Makes SIGTERM and SIGHUP raise `SystemExit`, so that a command cleans up what it has not finished.

    The exit code is then 128 and the signal's number, as in a shell for a process that a signal killed. SIGINT raises
    `KeyboardInterrupt`.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if _in_finalizer(frame):
            # Python prints and forgets what is raised there, so the signal comes again.
            again = threading.Timer(_FINALIZER_SECONDS, signal.pthread_kill, (threading.get_ident(), number))
            again.daemon = True
            again.start()
            return
        # A signal may come after the opening of a file and before the block that closes it. Python closes the file, and
        # would print a warning between the lines of the command.
        warnings.simplefilter("ignore", ResourceWarning)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` ignores SIGHUP, and it must stay ignored.
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, end)


def _in_finalizer(frame: FrameType | None) -> bool:
    """Whether a `__del__` is running."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _end(line: str, code: Exit) -> NoReturn:
    """Prints an error and exits."""
    report(line)
    sys.exit(code)
