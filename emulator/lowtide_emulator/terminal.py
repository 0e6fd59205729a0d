"""The surroundings of the command: its streams, its variables, and its errors in words."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from lowtide_emulator.settings import Settings

_OWN = "LOWTIDE_EM"
"""Variables that begin so are meant for this command. Others belong to the queue, which checks them itself."""
_SIMILARITY = 0.8
_PORT_ERRORS = {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}


def prepare_streams() -> None:
    """Makes the standard streams usable if they are closed, and in every locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Python sets a closed stream to None. The next file that is opened would get its number.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discards the rest of standard output, so that Python does not write it again when the process ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unknown_variables(known: set[str]) -> Iterator[str]:
    """Yields a warning for each variable that looks like one of the command's but is none.

    known: the variables of the command's settings.
    """
    for name in sorted(os.environ):
        if name.upper().startswith(_OWN) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_SIMILARITY)
            yield f"{name} is not a setting and has no effect" + (f": did you mean {near[0]}?" if near else "")


def in_words(error: Exception, settings: Settings) -> str:
    """Returns the text of an error that ends the command, with what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.errno in _PORT_ERRORS and error.filename is None:
        place = f"port {settings.port} of {settings.host}"
        return f"{place} cannot be used: {error.strerror}; choose another with --port (0: any free one)"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
