"""`lowtide doctor` and `lowtide installation` with a whole stack: its parts fit each other, or the reason is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.helpers import Cli
from tests.command import Command

from lowtide import BatchQueue


def test_doctor_finds_nothing_wrong_with_a_whole_stack(cli: Cli) -> None:
    shown, listed = cli.all(["doctor"], ["doctor", "--json"])
    assert (shown.code, listed.code) == (0, 0)
    assert "noeviction" in shown.out
    report = listed.json()
    assert report["ok"] is True
    assert {check["check"] for check in report["checks"]} >= {"Redis", "Eviction", "Spool", "Provider", "Worker"}


def test_a_provider_without_a_key_is_told_apart(cli: Cli) -> None:
    without = Cli({**cli.environment, "GOOGLE_API_KEY": ""}, cli.folder)
    doctor, jobs = without.all(["doctor", "--json"], ["jobs"])
    [provider] = [check for check in doctor.json()["checks"] if check["check"] == "Provider"]
    # The workers of the stack have a key.
    assert (provider["verdict"], doctor.code, jobs.code) == ("warn", 0, 1)
    assert "GEMINI_API_KEY" in jobs.err


def test_a_spool_that_is_not_the_workers_is_shown_and_told_and_not_adopted_by_mistake(
    cli: Cli, queue: BatchQueue, tmp_path: Path
) -> None:
    queue.submit([{"key": "a", "contents": "Hi"}], model="gemini-3.5-flash").wait(timeout=180)
    strayed = {"LOWTIDE_SPOOL_URL": str(tmp_path / "elsewhere")}

    assert cli("installation", "--json").json()["same"] is True
    shown = cli("installation", "--json", code=1, **strayed).json()
    assert (shown["same"], shown["spool"]["id"]) == (False, None)
    checks = {check["check"]: check for check in cli("doctor", "--json", code=1, **strayed).json()["checks"]}
    assert checks["Installation"]["verdict"] == "fail"
    assert "not the workers' spool" in checks["Installation"]["seen"]
    cli("installation", "adopt", code=2, **strayed)
    assert cli("installation", "--json", code=1, **strayed).json() == shown


def test_a_question_without_a_terminal_is_wrong_usage(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    said = Command(cli.environment, cli.folder, capsys)("installation", "adopt")
    assert (said.code, said.err) == (2, "lowtide: there is no terminal to ask for confirmation: add --yes\n")
