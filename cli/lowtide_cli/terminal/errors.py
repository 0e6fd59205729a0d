"""Errors of the command line, and the one-line message of each expected error."""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A command cannot do what the user asked for. The message gives the reason and a remedy."""


class WrongUsage(CommandError):
    """The arguments do not fit the surroundings. The exit code is 2, as for arguments that cannot be parsed."""


class MissingExtra(CommandError):
    """An optional part of Lowtide is not installed."""


def one_line(error: BaseException) -> str | None:
    """Returns the message for an expected error, or None for a defect, which deserves its traceback."""
    if isinstance(error, CommandError):
        return str(error)
    # An error of these packages can only occur if its module has been imported already.
    for module, names in (
        ("lowtide.errors", ("LowtideError",)),
        ("lowtide_worker.providers.protocol", ("ProviderError",)),
    ):
        if _is_one(error, module, names):
            return str(error)
    if isinstance(error, UnicodeEncodeError):
        return f"not UTF-8: {error.object[max(0, error.start - 20) : error.end + 20]!a}"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return None


def _is_one(error: BaseException, module: str, names: tuple[str, ...]) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, tuple(getattr(loaded, name) for name in names))
