from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.cli.helpers import MODEL, Cli, alive, clean_environment, descendants, eventually, requests

from lowtide_cli.processes import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Run(NamedTuple):
    """One `lowtide up` or `lowtide demo`."""

    process: subprocess.Popen[str]
    cli: Cli

    def until_up(self) -> list[str]:
        """What it said until it was up."""
        said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said.append(line)
            if "Ctrl-C stops everything" in line:
                return said
        pytest.fail("".join(said))

    def rest(self) -> str:
        """What it says until it ends."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def child(self, word: str) -> int:
        """The first of its children with this word in its command line."""
        ours = sorted(descendants(self.process.pid))
        return next(pid for pid in ours if word in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All of them at once: each takes seconds to start, and most of those it waits."""
    wanted = {
        "whole": ["up"],
        "killed": ["up", "--no-flower"],
        "mourning": ["up", "--no-flower", "--one-worker"],
        "demo": ["demo"],
    }
    found: dict[str, Run] = {}
    for name, arguments in wanted.items():
        cli = Cli(clean_environment(), tmp_path_factory.mktemp(name))
        more = {"LOWTIDE_REDIS_URL": "redis://127.0.0.1:1/0", "GEMINI_API_KEY": "never-used"} if name == "demo" else {}
        if name != "demo":
            ports = [f"--{part}-port={free_port()}" for part in ("redis", "emulator", "flower")]
            arguments += ["--data-dir", "data", *ports]
        found[name] = Run(cli.start(*arguments, **more), cli)
    yield found
    for run in found.values():
        run.process.kill()
        run.process.communicate()


def test_up_serves_a_batch_and_ctrl_c_leaves_nothing_behind(runs: dict[str, Run]) -> None:
    up = runs["whole"]
    said = up.until_up()
    mine = descendants(up.process.pid)
    assert len(mine) >= 7  # server, emulator, two workers, the processes of one, Flower
    password = next(line for line in said if "Flower" in line).split("lowtide:")[1].split()[0]
    for pid in mine:
        assert password not in Path(f"/proc/{pid}/cmdline").read_text()
    lines = (line.strip().removeprefix("export ") for line in said if line.strip().startswith("export "))
    other = Cli({**clean_environment(), **dict(line.split("=", 1) for line in lines)}, up.cli.folder)
    batch_id = other("submit", other.file(requests(2)), "--model", MODEL).out.strip()
    assert other("status", batch_id, "--json").json()["total"] == 2
    up.process.send_signal(signal.SIGINT)
    rest = up.rest()
    assert up.process.wait(30) == 0
    assert "everything is stopped" in rest
    assert "Traceback" not in rest
    assert not any(map(alive, mine))


def test_two_do_not_share_a_data_folder_and_a_kill_leaves_no_orphan(runs: dict[str, Run]) -> None:
    up = runs["killed"]
    up.until_up()
    second = up.cli("up", "--data-dir", "data", "--no-flower", code=1)
    assert "another server already runs" in second.err
    mine = descendants(up.process.pid)
    up.process.kill()
    up.process.wait(10)
    eventually(lambda: not any(map(alive, mine)))


def test_up_starts_a_dead_worker_again_and_stops_when_the_server_dies(runs: dict[str, Run]) -> None:
    up = runs["mourning"]
    up.until_up()
    os.kill(up.child("celery"), signal.SIGKILL)
    assert up.process.stdout is not None
    assert any("worker started again" in line for line in up.process.stdout)
    mine = descendants(up.process.pid)
    os.kill(up.child("-server"), signal.SIGKILL)
    assert "Redis ended unexpectedly (killed by SIGKILL)" in up.rest()
    assert up.process.wait(30) == 1
    assert not any(map(alive, mine))


def test_demo_gets_every_result_and_leaves_nothing_behind(runs: dict[str, Run]) -> None:
    rest = runs["demo"].rest()
    assert runs["demo"].process.wait(30) == 0, rest
    assert "has its result, checked key by key" in rest
    named = rest.partition("processes:")[2].splitlines()[0].replace(",", " ").split()
    pids = [int(word) for word in named if word.isdecimal()]
    assert len(pids) == 4
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("LOWTIDE_FLOWER_BASIC_AUTH", "password", "user:password"),
        ("LOWTIDE_REDIS_URL", "redis://127.0.0.1:1/0", "not reachable"),
    ],
)
def test_up_tells_at_once_what_cannot_work(tmp_path: Path, setting: str, value: str, told: str) -> None:
    assert told in Cli(clean_environment(), tmp_path)("up", code=1, **{setting: value}).err
