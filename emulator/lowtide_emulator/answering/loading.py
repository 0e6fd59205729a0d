"""Answers from outside: a function by its name, and fixed answers from a file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

import msgspec
from msgspec import Raw

from lowtide_emulator.answering.answers import Answer, RowError


class CannedLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of an answers file: a key with either a response or an error."""

    key: str
    response: Raw = Raw(b"null")
    error: RowError | None = None


_decode = msgspec.json.Decoder(CannedLine).decode


def load_function(path: str) -> Answer:
    """Returns the function with a name of the form `module:function`. Raises ValueError."""
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot load {path!r}; expected module:function ({error})") from error
    except Exception as error:
        raise ValueError(f"cannot load {path!r}: importing {module} raised {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"cannot load {path!r}: it is a {type(function).__name__} and not a function")  # noqa: TRY004 - the value of an option
    return cast("Answer", function)


def load_answers(path: Path) -> dict[str, Raw | RowError]:
    """Returns the fixed answers of a JSONL file, by key. Raises ValueError."""
    canned: dict[str, Raw | RowError] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                entry = _decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if entry.error is not None:
                canned[entry.key] = entry.error
            else:
                canned[entry.key] = entry.response.copy()
    return canned
