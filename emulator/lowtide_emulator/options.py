"""Options of the command, made from the fields of its settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from lowtide_emulator.settings import Setting, Settings

S = TypeVar("S", bound=Settings)

_METAVARS = {int: "N", float: "N"}
"""The word for the value of an option in the help, by its type; of other types it is Typer's."""


def options_from(settings: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """Returns a decorator for a command that takes settings: each field becomes an option.

    An option has its field's name, description and default, and is also read from `LOWTIDE_EMULATOR_<NAME>`. An option
    for a set can be repeated.
    """
    hints = get_type_hints(settings, include_extras=True)
    parameters = [_parameter(field, *get_args(hints[field.name])) for field in fields(settings)]
    sets = [name for name, hint in hints.items() if get_args(hint)[0] == frozenset[str]]

    def decorate(command: Callable[[S], None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            command(settings(**values | {name: frozenset(values[name] or ()) for name in sets}))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
        return run

    return decorate


def variable(name: str, setting: Setting) -> str:
    """Returns the environment variable of a setting."""
    return f"LOWTIDE_EMULATOR_{(setting.option or name).upper()}"


def variables(settings: type[Settings]) -> set[str]:
    """Returns the environment variables of all settings."""
    hints = get_type_hints(settings, include_extras=True)
    return {variable(field.name, get_args(hints[field.name])[1]) for field in fields(settings)}


def _parameter(field: Field[Any], kind: Any, setting: Setting) -> inspect.Parameter:
    name = setting.option or field.name
    words = name.replace("_", "-")
    default = field.default if setting.served is None else setting.served
    if kind == frozenset[str]:
        kind, default = list[str] | None, None
    option = typer.Option(
        f"--{words}/--no-{words}" if default is True else f"--{words}",
        envvar=variable(field.name, setting),
        metavar=_METAVARS.get(kind, "") or None,
        help=setting.description,
        **setting.checks,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
