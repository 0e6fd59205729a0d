from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.helpers import LOWTIDE, Cli
from typer.core import TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from lowtide import BatchState, ProviderName
from lowtide_cli.app import app
from lowtide_cli.app.root import PROVIDERS, STATES

BATCH_COMMANDS = ("submit", "list", "status", "watch", "results", "cancel", "delete")
COMMANDS = ("up", "demo", *BATCH_COMMANDS, "ask", "ticket", "jobs", "flower", "doctor", "version")


def test_help_names_every_command_and_the_exit_codes(lonely_cli: Cli) -> None:
    text = " ".join(lonely_cli("--help").out.split())
    assert all(command in text for command in COMMANDS)
    assert "3 finished, but requests failed" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [command, "-h"], prog_name="lowtide")
    assert done.exit_code == 0
    assert f"lowtide {command}" in done.output


def every_command(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each command and group, with the words that lead to it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, (*path, name))


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_help_at_any_width_has_whole_names_and_all_of_their_text(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    # Built once: CliRunner would build all commands for each of them.
    root = get_command(app)
    for path, command in every_command(root):
        root.main([*path, "--help"], prog_name="lowtide", standalone_mode=False)
        output = capsys.readouterr().out
        lines = output.splitlines()
        # Only a word that is longer than the line may be beyond its end.
        assert all(len(line) <= columns or len(line.split()) <= 2 for line in lines), (path, output)
        said = " ".join(output.split())
        texts = [command.help, *(param.help for param in command.params if not getattr(param, "hidden", False))]
        for text in filter(None, texts):
            assert " ".join(text.split()) in said, (path, text)
        for param in command.params:
            if getattr(param, "hidden", False) or not isinstance(param, TyperOption):
                continue
            # The value of a flag is no word that a user writes.
            value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
            names = ", ".join([*sorted(param.opts, key=len), *param.secondary_opts]) + value
            assert any(f"{line}  ".startswith(f"  {names}  ") for line in lines), (path, names, output)


def test_the_exit_codes_of_an_estimate_are_about_requests() -> None:
    text = " ".join(CliRunner().invoke(app, ["estimate", "-h"], prog_name="lowtide").output.split())
    assert "0 submit would take every request; 1 it would refuse some" in text
    assert "batch was cancelled" not in text


def test_help_imports_nothing_heavy(lonely_cli: Cli) -> None:
    # Not by `lonely_cli`, whose processes have imported everything.
    env = {**lonely_cli.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([*LOWTIDE, "--help"], env=env, capture_output=True, text=True, check=True)
    assert " lowtide_cli.entry\n" in done.stderr
    for module in ("lowtide.queue", "redis", "celery", "pydantic", "rich.live"):
        assert f" {module}\n" not in done.stderr


def test_version(lonely_cli: Cli) -> None:
    assert lonely_cli("--version").out == lonely_cli("version").out
    assert lonely_cli("version").out.startswith("lowtide ")


def test_completion_completes_commands(lonely_cli: Cli) -> None:
    done = lonely_cli(_LOWTIDE_COMPLETE="complete_bash", COMP_WORDS="lowtide do", COMP_CWORD="1")
    assert done.out.split() == ["doctor"]


def test_values_of_options_are_named_and_completed(lonely_cli: Cli) -> None:
    assert STATES.split("|") == list(BatchState)
    assert PROVIDERS.split("|") == list(ProviderName)
    words = "lowtide list --state ca"
    done = lonely_cli(_LOWTIDE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert done.out.split() == ["cancelling", "cancelled"]


def test_every_option_that_takes_one_of_some_words_is_completed() -> None:
    found = 0
    for path, command in every_command(get_command(app)):
        for param in command.params:
            if not re.fullmatch(r"[a-z]+(\|[a-z]+)+", param.metavar or ""):
                continue
            before = ["lowtide", *path, *param.opts[:1]] if isinstance(param, TyperOption) else ["lowtide", *path]
            env = {
                "_LOWTIDE_COMPLETE": "complete_bash",
                "COMP_WORDS": " ".join([*before, ""]),
                "COMP_CWORD": str(len(before)),
            }
            done = CliRunner().invoke(app, [], prog_name="lowtide", env=env)
            assert done.output.split() == param.metavar.split("|"), (path, param.metavar)
            found += 1
    assert found >= 10


def test_wrong_usage_exits_2(lonely_cli: Cli) -> None:
    done = lonely_cli("submit", "x.jsonl", code=2)
    assert "--model" in done.err
    assert not done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["submit", "x.jsonl", "--model", "m", "--label", "novalue"],
        ["submit", "x.jsonl", "--model", "m", "--mode", "carrier-pigeon"],
        ["status"],
        ["list", "--state", "wet"],
        ["list", "--page-size", "0"],
        ["list", "--page-token", "junk"],
        ["up", "--threads", "0"],
    ],
)
def test_each_wrong_use_is_told_on_standard_error(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr


def test_an_unreachable_redis_is_one_clear_line_within_seconds(lonely_cli: Cli) -> None:
    started = time.monotonic()
    for done in lonely_cli.all(
        ["status", "bxyz"], ["list", "--json"], ["watch", "bxyz"], ["results", "bxyz"], ["cancel", "bxyz"]
    ):
        assert (done.code, done.out) == (1, "")
        assert len(done.err.splitlines()) == 1
        assert "not reachable" in done.err
        assert "secret" not in done.err
    assert time.monotonic() - started < 60


def test_a_setting_that_makes_no_sense_is_named(lonely_cli: Cli) -> None:
    done = lonely_cli("list", code=1, LOWTIDE_MAX_ATTEMPTS="minus two")
    assert "LOWTIDE_MAX_ATTEMPTS" in done.err
    assert len(done.err.splitlines()) == 1


def test_doctor_fails_without_redis(lonely_cli: Cli) -> None:
    report = lonely_cli("doctor", "--json", code=1, LOWTIDE_SPOOL_URL=str(lonely_cli.folder / "spool")).json()
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert verdicts["Redis"] == "fail"
    assert verdicts["Spool"] == "ok"
