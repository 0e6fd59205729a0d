"""The table of exit codes in the reference has every command, with the codes that the command's code can return."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.cli.helpers import LOWTIDE, Cli
from typer.main import get_command

import lowtide_cli
from lowtide import ResultStatus
from lowtide_cli.app import app
from lowtide_cli.terminal import Exit, exit_of_result

ROOT = Path(str(lowtide_cli.__file__)).parent
REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
EMULATOR = "lowtide-emulator serve"
SERVERS = {
    "lowtide hooks serve": [*LOWTIDE, "hooks", "serve", "--port", "0"],
    "lowtide metrics": [*LOWTIDE, "metrics", "--port", "0"],
    EMULATOR: [sys.executable, "-m", "lowtide_emulator.cli", "serve", "--port", "0"],
}


class Meanings(NamedTuple):
    """A row of the table, but for its commands."""

    done: str
    error: str
    failures: str
    stopped: str
    interrupted: str


@cache
def table() -> dict[str, Meanings]:
    section = REFERENCE.read_text().partition("\n### Exit codes\n")[2]
    found = {}
    for line in re.findall(r"^\| `lowtide.*\|$", section, re.MULTILINE):
        commands, *meanings = (cell.strip() for cell in line.strip("|").split("|"))
        for command in re.findall(r"`([^`]+)`", commands):
            assert command not in found, f"{command} has two rows"
            found[command] = Meanings(*meanings)
    return found


def commands(command: Any, path: Sequence[str] = ("lowtide",)) -> Iterator[tuple[str, Any]]:
    """Yields each command that does something by itself, and the function that typer calls for it."""
    if not hasattr(command, "commands") or (command.invoke_without_command and len(path) > 1):
        yield " ".join(path), command.callback
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def file_of(module: str) -> Path:
    path = ROOT.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text())


def imported(tree: ast.AST) -> dict[str, str]:
    """The names that are imported from other modules of the command line, each with the full name of the thing."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lowtide_cli")
        for alias in node.names
    }


def codes(function: str, seen: set[str]) -> set[str]:
    """The members of `Exit` that a function names, and those that the functions do which it names in turn."""
    module, _, name = function.rpartition(".")
    if function in seen or not file_of(module).exists():
        return set()
    seen.add(function)
    tree = tree_of(module)
    own = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    if name not in own:
        # A folder's `__init__` imports it for others; else it is no function.
        known = imported(tree)
        return codes(known[name], seen) if name in known else set()
    top = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])
    # The imports of a function are its own: each command imports what does its work under the same name.
    names = {other: f"{module}.{other}" for other in own} | imported(top) | imported(own[name])
    found: set[str] = set()
    for part in (part for statement in own[name].body for part in ast.walk(statement)):
        match part:
            case ast.Attribute(value=ast.Name(id="Exit"), attr=code):
                found.add(code)
            case ast.Attribute(value=ast.Name(id=place), attr=attr) if place in names:
                found |= codes(f"{names[place]}.{attr}", seen)
            case ast.Name(id=other) if other in names:
                found |= codes(names[other], seen)
            case _:
                pass
    return found


COMMANDS = dict(commands(get_command(app)))


def test_every_command_has_its_row() -> None:
    assert set(table()) == {*COMMANDS, EMULATOR}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_row_has_the_codes_that_the_command_can_return(command: str) -> None:
    function = COMMANDS[command]

    found = codes(f"{function.__module__}.{function.__name__}", set()) - {"OK", "USAGE", "INTERRUPTED"}

    row = table()[command]
    told = {"ERROR": row.error, "FAILURES": row.failures, "STOPPED": row.stopped}
    assert found == {name for name, meaning in told.items() if meaning}


def test_servers_end_after_ctrl_c_with_the_code_of_their_rows(cli: Cli) -> None:
    running = {
        name: subprocess.Popen(
            command, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for name, command in SERVERS.items()
    }
    ended = {}
    for name, process in running.items():
        with process:
            assert process.stdout is not None
            assert "http://" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=180)
            ended[name] = str(process.returncode)

    assert ended == {name: table()[name].interrupted for name in SERVERS}


def test_the_numbers_are_those_of_the_table() -> None:
    assert [int(code) for code in (Exit.OK, Exit.ERROR, Exit.USAGE, Exit.FAILURES, Exit.STOPPED)] == [0, 1, 2, 3, 4]
    assert {row.interrupted.partition(",")[0] for row in table().values()} == {str(int(Exit.INTERRUPTED)), "0"}


def test_the_code_of_one_request_is_that_of_its_result() -> None:
    assert [int(exit_of_result(status)) for status in ResultStatus] == [0, 3, 4, 4]
