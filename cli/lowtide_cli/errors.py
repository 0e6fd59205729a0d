"""Errors of the command line, and the one line that each error of Lowtide is told in."""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A command cannot do what was asked; the message says why and what to do."""


class MissingExtra(CommandError):
    """An optional part of Lowtide is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs an extra that is not installed: pip install "lowtide[{extra}]"')


def one_line(error: BaseException) -> str | None:
    """The line that tells a foreseen error; None for one that is a defect and deserves its traceback."""
    if isinstance(error, CommandError):
        return str(error)
    # An error of these packages can only be here if its module was imported already.
    for module, names in (
        ("lowtide.errors", ("LowtideError",)),
        ("lowtide_worker.providers", ("ProviderError",)),
        ("pydantic_settings", ("SettingsError",)),
    ):
        loaded = sys.modules.get(module)
        if loaded and isinstance(error, tuple(getattr(loaded, name) for name in names)):
            return str(error)
    pydantic = sys.modules.get("pydantic")
    if pydantic and isinstance(error, pydantic.ValidationError):
        problems = error.errors(include_url=False, include_input=False)
        return "; ".join(f"{_variable(problem['loc'])}{problem['msg']}" for problem in problems)
    return None


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable of a setting, its alias or its name under the prefix; nothing where the message names several."""
    if not location:
        return ""
    name = str(location[0])
    return f"{name if name.isupper() else f'LOWTIDE_{name.upper()}'}: "
