from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.helpers import MODEL, Cli, alive, clean_environment, descendants, eventually, requests

from lowtide_cli.processes import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def up_cli(tmp_path: Path) -> Cli:
    return Cli(clean_environment(), tmp_path)


@contextmanager
def running(cli: Cli, *options: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`lowtide up`, once it says that it is; and what it said."""
    ports = [f"--{name}-port={free_port()}" for name in ("redis", "emulator", "flower")]
    with cli.start("up", "--data-dir", str(cli.folder / "data"), *ports, *options, **more) as process:
        try:
            assert process.stdout is not None
            said: list[str] = []
            for line in process.stdout:
                said.append(line)
                if "Ctrl-C stops everything" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield process, said
        finally:
            process.kill()


def exports(said: list[str]) -> dict[str, str]:
    lines = (line.strip().removeprefix("export ") for line in said if line.strip().startswith("export "))
    return dict(line.split("=", 1) for line in lines)


def test_up_serves_a_batch_and_ctrl_c_leaves_nothing_behind(up_cli: Cli) -> None:
    with running(up_cli) as (process, said):
        mine = descendants(process.pid)
        assert len(mine) >= 7  # server, emulator, two workers, the pool's processes, Flower
        password = next(line for line in said if "Flower" in line).split("lowtide:")[1].split()[0]
        for pid in mine:
            assert password not in Path(f"/proc/{pid}/cmdline").read_text()
        other = Cli({**clean_environment(), **exports(said)}, up_cli.folder)
        submitted = other("submit", other.file(requests(2)), "--model", MODEL)
        assert other("status", submitted.out.strip(), "--json").json()["total"] == 2
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(30) == 0
    assert "everything is stopped" in rest
    assert "Traceback" not in rest
    assert not any(map(alive, mine))


def test_two_do_not_share_a_data_folder_and_a_kill_leaves_no_orphan(up_cli: Cli) -> None:
    with running(up_cli, "--no-flower") as (process, _):
        second = up_cli("up", "--data-dir", "data", "--no-flower", code=1)
        assert "another server already runs" in second.err
        mine = descendants(process.pid)
        process.kill()
        process.wait(10)
        eventually(lambda: not any(map(alive, mine)))


def test_up_starts_a_dead_worker_again_and_stops_when_the_server_dies(up_cli: Cli) -> None:
    with running(up_cli, "--no-flower", "--one-worker") as (process, _):
        assert process.stdout is not None
        os.kill(child_of(process.pid, "celery"), signal.SIGKILL)
        assert any("worker started again" in line for line in process.stdout)
        mine = descendants(process.pid)
        os.kill(child_of(process.pid, "-server"), signal.SIGKILL)
        rest = process.stdout.read()
        assert "Redis ended unexpectedly (killed by SIGKILL)" in rest
        assert process.wait(30) == 1
        assert not any(map(alive, mine))


def test_up_wants_a_whole_login_for_flower(up_cli: Cli) -> None:
    assert "user:password" in up_cli("up", code=1, LOWTIDE_FLOWER_BASIC_AUTH="password").err


def test_demo_gets_every_result(up_cli: Cli) -> None:
    done = up_cli("demo", LOWTIDE_REDIS_URL="redis://127.0.0.1:1/0", GEMINI_API_KEY="must-not-be-used")
    assert "has its result, checked key by key" in done.out


def child_of(pid: int, word: str) -> int:
    return next(
        child for child in sorted(descendants(pid)) if word in Path(f"/proc/{child}/cmdline").read_text()
    )  # fmt: skip
