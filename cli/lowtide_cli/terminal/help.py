"""Commands and groups with help pages of ours, which fit the terminal.

Typer's own pages are tables of five columns. At 80 characters they divide names, and leave 18 characters for the text.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from lowtide_cli.terminal.exits import Exit
from lowtide_cli.terminal.interruption import NOTHING_DONE, on_interruption, report_interruption

Function = TypeVar("Function", bound=Callable[..., Any])


class CommandWithHelp(TyperCommand):
    """A command with a help page of ours."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words behind the name of the command in its usage line."""
        return _usage(self, ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        from lowtide_cli.terminal.help_page import print_page  # deferred: most commands print no help

        del formatter
        print_page(self, ctx, {})


class GroupWithHelp(TyperGroup):
    """A group of commands with a help page of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        with _said_if_interrupted():
            return super().invoke(ctx)

    def make_context(self, *args: Any, **given: Any) -> Any:
        """Parses the arguments, which imports what their help and errors need."""
        with _said_if_interrupted(), on_interruption(NOTHING_DONE):
            return super().make_context(*args, **given)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words behind the name of the group in its usage line."""
        return [*_usage(self, ctx), "[COMMAND]" if self.invoke_without_command else "COMMAND", "[ARGS]..."]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page, with the commands in their panels."""
        from lowtide_cli.terminal.help_page import print_page

        del formatter
        panels: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            first, _, _ = inspect.cleandoc(command.help or "").partition("\n\n")
            panels[command.rich_help_panel or "Commands"].append((name, first))
        print_page(self, ctx, panels)


class App(typer.Typer):
    """A `Typer` whose commands have help pages of ours."""

    def __init__(self, **given: Any) -> None:
        super().__init__(cls=GroupWithHelp, **given)

    def command(self, name: str | None = None, **given: Any) -> Callable[[Function], Function]:
        """Returns the decorator for a command, with the parameters of `Typer.command`."""
        return super().command(name, cls=CommandWithHelp, **given)


@contextmanager
def _said_if_interrupted() -> Iterator[None]:
    """Reports Ctrl-C within the block: Typer only ends with its exit code."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        report_interruption(interruption)
        raise typer.Exit(Exit.INTERRUPTED) from interruption


def _usage(command: TyperCommand | TyperGroup, context: Any) -> list[str]:
    arguments = [one for one in command.get_params(context) if isinstance(one, TyperArgument)]
    return ["[OPTIONS]", *(f"{one.metavar}" if one.required else f"[{one.metavar}]" for one in arguments)]
