from __future__ import annotations

import subprocess
import time

import pytest
from tests.cli.helpers import LOWTIDE, Cli
from typer.testing import CliRunner

from lowtide_cli.app import app

BATCH_COMMANDS = ("submit", "list", "status", "watch", "results", "cancel", "delete")
COMMANDS = ("up", "demo", *BATCH_COMMANDS, "jobs", "flower", "doctor", "version")


def test_help_names_every_command_and_the_exit_codes(lonely_cli: Cli) -> None:
    text = lonely_cli("--help").out
    assert all(command in text for command in COMMANDS)
    assert "3 finished, but requests failed" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [command, "-h"], prog_name="lowtide")
    assert done.exit_code == 0
    assert f"lowtide {command}" in done.output


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
    assert time.monotonic() - started < 20


def test_a_setting_that_makes_no_sense_is_named(lonely_cli: Cli) -> None:
    done = lonely_cli("list", code=1, LOWTIDE_MAX_ATTEMPTS="minus two")
    assert "LOWTIDE_MAX_ATTEMPTS" in done.err
    assert len(done.err.splitlines()) == 1


def test_doctor_fails_without_redis(lonely_cli: Cli) -> None:
    report = lonely_cli("doctor", "--json", code=1, LOWTIDE_SPOOL_URL=str(lonely_cli.folder / "spool")).json()
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert verdicts["Redis"] == "fail"
    assert verdicts["Spool"] == "ok"
