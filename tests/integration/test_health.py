"""The probes of workers: live whatever Redis does, ready only with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.ports import quiet_port
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide_cli.local import Shape
from lowtide_cli.local import Stack as LocalStack
from lowtide_worker.host import health
from lowtide_worker.host.health import Health


def probe(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=180)
    connection.request("GET", path)
    reply = connection.getresponse()
    try:
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def listening_inode(port: int) -> str:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [inode] = [line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"]
    return inode


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_is_live_without_redis_and_ready_only_with_it(bare_stack: Stack, pool: str) -> None:
    port = quiet_port()
    worker = bare_stack.worker("-P", pool, "-c", "1", LOWTIDE_HEALTH_PORT=str(port))

    assert probe(port, "/livez") == (200, "ok\n")
    wait_until(lambda: probe(port, "/readyz") == (200, "ok\n"))
    assert probe(port, "/metrics")[0] == 404
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    assert bool(children) == (pool == "prefork")
    for child in children:
        for descriptor in Path(f"/proc/{child}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed meanwhile
                assert descriptor.readlink().name != f"socket:[{listening_inode(port)}]"

    frozen = bare_stack.redis_server.pid
    assert frozen
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: "Redis does not serve" in probe(port, "/readyz")[1])
        assert probe(port, "/livez")[0] == 200
    finally:
        os.kill(frozen, signal.SIGCONT)

    bare_stack.redis_server.kill()

    assert wait_until(lambda: (answer := probe(port, "/readyz"))[0] == 503 and answer[1])
    assert probe(port, "/livez")[0] == 200
    if pool == "threads":
        env = bare_stack.env | {"LOWTIDE_HEALTH_PORT": str(port)}
        ask = [sys.executable, "-m", "lowtide_cli", "health"]
        answers = [subprocess.run([*ask, probe], env=env, check=False).returncode for probe in ("live", "ready")]
        assert answers == [0, 1]

    bare_stack.redis_server.start()
    wait_until(lambda: probe(port, "/readyz")[0] == 200)


def test_a_worker_whose_port_is_taken_ends_with_one_line(bare_stack: Stack) -> None:
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-P", "solo"]
    env = bare_stack.env | {"LOWTIDE_HEALTH_PORT": str(bare_stack.redis_server.port)}

    done = subprocess.run(command, env=env, cwd=bare_stack.directory, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "worker.ends" in line]
    assert "set LOWTIDE_HEALTH_PORT to a free port" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "problem"), [(["live"], "set LOWTIDE_HEALTH_PORT"), (["live", "--port=1"], "no worker")]
)
def test_a_probe_without_a_worker_is_a_clear_error(bare_stack: Stack, words: list[str], problem: str) -> None:
    command = [sys.executable, "-m", "lowtide_cli", "health", *words]

    done = subprocess.run(
        command, env=bare_stack.env, cwd=bare_stack.directory, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_the_workers_of_lowtide_up_do_not_compete_for_one_port(tmp_path: Path) -> None:
    local = LocalStack(Shape(directory=tmp_path, environment={"LOWTIDE_HEALTH_PORT": "8081"}))

    assert local.environment["LOWTIDE_HEALTH_PORT"] == "0"


def test_a_main_loop_that_has_stopped_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(health, "elapsed", lambda: now)
    of_pool, of_solo = Health(), Health()
    of_pool.connected(blocks=False)
    of_solo.connected(blocks=True)

    now += 100
    assert of_pool.why_not_ready()
    assert not of_pool.why_not_live()

    now += 1000
    assert "1100 s" in of_pool.why_not_live()
    # The main loop of a worker without a pool stops for as long as a task runs.
    assert not of_solo.why_not_live()
    assert not of_solo.why_not_ready()
    of_pool.disconnected()
    assert not of_pool.why_not_live()
    assert of_pool.why_not_ready()
