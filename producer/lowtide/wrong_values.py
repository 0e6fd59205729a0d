"""The problems of settings in words: the variable, what its value must be, and an example.

No text from this module repeats a value, which may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, get_args

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

PREFIX = "LOWTIDE_"
ENV_FILE = ".env"
FILE_SUFFIX = "_FILE"
"""The end of a variable that names the file with the value of another one."""

ReadError = ValidationError | SettingsError | UnicodeDecodeError
"""The errors of reading settings from arguments, from the environment and from `.env`."""


def explain(error: ReadError, fields: Mapping[str, FieldInfo]) -> str:
    """Returns one line that names each wrong variable, what its value must be, and an example.

    - `fields`: the settings, by name.
    """
    match error:
        case ValidationError():
            problems = error.errors(include_url=False, include_input=False)
            return "; ".join(dict.fromkeys(_described(problem, fields) for problem in problems))
        case SettingsError():
            named = re.search(r'"(\w+)"', str(error))
            name = named[1] if named else ""
            return _expected(name, fields[name]) if name in fields else f"settings: {error}"
        case UnicodeDecodeError():
            return f"{ENV_FILE} is not UTF-8: save it as UTF-8"


def _described(problem: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    """A problem, after the variable that it is about. A problem with several variables names them itself."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    location = str(problem["loc"][0])
    name = next((name for name, field in fields.items() if location in {name, *variables_of(name, field)}), None)
    if name is None:
        return f"{location}: {message}"
    if problem["type"] == "value_error":  # of Lowtide's own validators, which say what to write
        return f"{_variable(name, fields[name])}: {message}"
    return _expected(name, fields[name])


def _expected(name: str, field: FieldInfo) -> str:
    variable = _variable(name, field)
    example = field.examples[0] if field.examples else field.default
    match example:
        case bool():
            shown = str(example).lower()
        case float():
            shown = f"{example:g}"
        case _:
            shown = f"'{example}'" if field.examples else str(example)
    first = variable.split(" ")[0]
    written = shown if first.endswith(FILE_SUFFIX) else f"{first}={shown}"
    return f"{variable}: this is not {_kind(field)}; write, for example, {written}"


def _kind(field: FieldInfo) -> str:
    """The values that a setting may have, in words."""
    kind, arguments = field.annotation, get_args(field.annotation)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(kind)
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"{'a whole number' if kind is int else 'a number'}{_bounds(field)}"
    inner = arguments[-1] if arguments else str
    if getattr(kind, "__origin__", None) is dict:
        values = _choice(inner) if isinstance(inner, type) and issubclass(inner, StrEnum) else "texts"
        return f"a JSON object whose values are {values}"
    return "a JSON list of texts" if getattr(kind, "__origin__", None) is list else "a text"


def _choice(kind: type[StrEnum]) -> str:
    *others, last = [member.value for member in kind]
    return f"{', '.join(others)} or {last}"


def _bounds(field: FieldInfo) -> str:
    limits: dict[str, Any] = {}
    for entry in field.metadata:
        limits |= {name: getattr(entry, name) for name in ("ge", "gt", "le") if hasattr(entry, name)}
    if "gt" in limits:
        return f" above {limits['gt']}"
    if "le" in limits:
        return f" from {limits['ge']:,} to {limits['le']:,}"
    return f" of {limits['ge']:,} or more" if "ge" in limits else ""


def _variable(name: str, field: FieldInfo) -> str:
    """The variable of a setting. Of several, those that are set, or else all: `.env` may hold any of them."""
    plain = variables_of(name, field)
    all_names = [spelled for one in plain for spelled in (one, f"{one}{FILE_SUFFIX}")]
    return " or ".join([one for one in all_names if os.environ.get(one)] or plain)


def variables_of(name: str, field: FieldInfo) -> list[str]:
    """Returns the variables that a setting is read from, the one that takes precedence first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias] if isinstance(alias, str) else [f"{PREFIX}{name.upper()}"]
