"""The help page of a command: each name is whole, and its text has most of the line."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

_WIDEST_PAGE = 100
_NARROW_PAGE = 60
"""Fewer columns than these leave no room for text beside the names."""
_WIDEST_NAME = 28
_INDENT = "  "
_NAME_STYLE = "cyan"

Entry = tuple[str, str]
"""A name with its text."""


def print_page(command: TyperCommand | TyperGroup, context: Any, panels: Mapping[str, Sequence[Entry]]) -> None:
    """Prints the page of a command. `panels` are the commands of a group, by the title of their section."""
    console = Console(highlight=False, emoji=False)
    shown: list[Any] = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    sections = {
        "Arguments": [(_metavar(one), _text(one)) for one in shown if isinstance(one, TyperArgument)],
        "Options": [(_name(one), _text(one)) for one in shown if isinstance(one, TyperOption)],
        **panels,
    }
    # One column for all sections, so that their texts begin at the same place.
    column = _column([name for entries in sections.values() for name, _ in entries], _width(console))
    _print(console, _paragraph(command.get_usage(context), _width(console), first="", rest=_INDENT * 2))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        _print(console, "", _paragraph(paragraph, _width(console)))
    for title, entries in sections.items():
        if entries:
            _print(console, "", Text(f"{title}:", style="bold"), *_entries(entries, column, _width(console)))
    if command.epilog:
        _print(console, "", _paragraph(command.epilog, _width(console)))


def _print(console: Console, *parts: str | Text) -> None:
    for part in parts:
        console.print(part, markup=False, soft_wrap=True)


def _width(console: Console) -> int:
    return min(console.width, _WIDEST_PAGE)


def _column(names: Iterable[str], width: int) -> int:
    """The column in which texts begin. A longer name has a line of its own."""
    if width < _NARROW_PAGE:
        return len(_INDENT * 3)
    fitting = [len(name) for name in names if len(name) <= _WIDEST_NAME]
    return max(fitting, default=0) + len(_INDENT * 2)


def _entries(entries: Iterable[Entry], column: int, width: int) -> Iterator[Text]:
    for name, text in entries:
        margin = " " * column
        beside = len(_INDENT * 2) + len(name) <= column
        first = f"{_INDENT}{name}".ljust(column) if beside else margin
        if not beside:
            yield Text.assemble(_INDENT, (name, _NAME_STYLE))
        if text:
            paragraph = Text(_paragraph(text, width, first=first, rest=margin))
            if beside:
                paragraph.stylize(_NAME_STYLE, 0, column)
            yield paragraph
        elif beside:
            yield Text(first.rstrip(), style=_NAME_STYLE)


def _paragraph(text: str, width: int, *, first: str = "", rest: str = "") -> str:
    """Wraps between words only: an id, an option or a URL that is divided cannot be copied."""
    wrapper = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(" ".join(text.split()))


def _name(option: TyperOption) -> str:
    names = [*sorted(option.opts, key=len), *option.secondary_opts]
    return ", ".join(names) + ("" if option.is_flag else f" {_metavar(option)}")


def _metavar(param: TyperArgument | TyperOption) -> str:
    return param.metavar or (param.name or "").upper()


def _text(param: TyperArgument | TyperOption) -> str:
    note = "required" if param.required else _default(param)
    return " ".join(filter(None, (param.help, f"[{note}]" if note else "")))


def _default(param: TyperArgument | TyperOption) -> str:
    if isinstance(param.show_default, str):
        return f"default: {param.show_default}"
    if isinstance(param.default, bool):
        return f"default: {param.opts[0]}" if param.default and param.show_default else ""
    return f"default: {param.default}" if param.show_default and isinstance(param.default, str | int | float) else ""
