"""The entry point: it runs the command line and prints an expected error as one line."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from lowtide_cli.app import app
from lowtide_cli.terminal import Exit, WrongUsage, bad_argument, discard_output, one_line, prepare_streams, report

_AGAIN_SECONDS = 0.01
"""Time in which a finalizer, or a function that C code calls, ends."""


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

    last = int(signal.SIGINT)

    def end(number: int, _: FrameType | None) -> None:
        nonlocal last
        last = number
        # A signal may come after the opening of a file and before the block that closes it. Python closes the file, and
        # would print a warning between the lines of the command.
        warnings.simplefilter("ignore", ResourceWarning)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def come_again(forgotten: sys.UnraisableHookArgs) -> None:
        if not issubclass(forgotten.exc_type, (KeyboardInterrupt, SystemExit)):
            sys.__unraisablehook__(forgotten)
            return
        # Python prints and forgets what is raised in a finalizer, or in a function that C code calls.
        again = threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, last))
        again.daemon = True
        with suppress(RuntimeError):  # the interpreter ends already
            again.start()

    sys.unraisablehook = come_again
    for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` ignores SIGHUP, and it must stay ignored.
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, end)


def _end(line: str, code: Exit) -> NoReturn:
    """Prints an error and exits."""
    report(line)
    sys.exit(code)
