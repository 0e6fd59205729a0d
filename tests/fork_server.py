"""A server that forks workers: the tests start hundreds, and most of a worker's start is importing libraries.

It imports the libraries once, nothing of Lowtide, and forks. The child becomes a session of its own, takes the
environment and the log it is given, and runs the `celery` command: from there on it is a worker like any other.
Requests and replies are JSON lines on its standard input and output; at their end it kills what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from tests.waiting import wait_until

_LIBRARIES = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.events.state",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "google.genai",
    "httpcore2",
    "kombu.transport.redis",
    "msgspec.json",
    "pydantic_settings",
    "redis.asyncio",
    "rich.console",
    "standardwebhooks",
)


class ForkServer:
    """The server, seen from a test. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )

    def start(self, command: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path) -> ForkedProcess:
        """Forks a worker; `command` are the arguments of `celery`."""
        pid = self.ask({"start": list(command), "env": dict(env), "log": str(log), "cwd": str(cwd)})
        return ForkedProcess(self, int(pid))

    def ask(self, question: Mapping[str, object]) -> Any:
        """One request and its reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Kills all workers that are left, and ends."""
        with self._process:
            pass


@cache
def shared() -> ForkServer:
    """The one of this process, started when it is first needed."""
    server = ForkServer()
    atexit.register(server.close)
    return server


class ForkedProcess:
    """A forked process, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, fork_server: ForkServer, pid: int) -> None:
        self._fork_server = fork_server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, or minus the number of the signal that killed it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._fork_server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Waits for its end. Raises `subprocess.TimeoutExpired`."""
        try:
            wait_until(lambda: self.poll() is not None, timeout=timeout)
        except AssertionError as late:
            raise subprocess.TimeoutExpired("celery", timeout) from late
        return cast("int", self.returncode)

    def terminate(self) -> None:
        """Asks it to end."""
        os.kill(self.pid, signal.SIGTERM)


def _serve() -> None:
    _import_libraries()
    running: set[int] = set()
    try:
        for line in sys.stdin:
            question = json.loads(line)
            reply: int | None
            if "start" in question:
                reply = _fork(question)
                running.add(reply)
            else:
                pid, status = os.waitpid(question["poll"], os.WNOHANG)
                reply = os.waitstatus_to_exitcode(status) if pid else None
                running.discard(pid)
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()
    finally:
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _import_libraries() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    # A collection in a child would touch, and so copy, every page with objects of the parent.
    gc.collect()
    gc.freeze()


def _die_with_parent() -> None:
    """Asks the kernel for SIGKILL at the server's death, whatever its cause; elsewhere the server kills them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _fork(question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _die_with_parent()
        log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nothing, log, log)):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        # Celery puts its own in their place; if these are not replaced too, the files beneath are closed.
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
        os.chdir(question["cwd"])
        os.environ.clear()
        os.environ.update(question["env"])
        random.seed()
        sys.argv = ["celery", *question["start"]]
        from celery.__main__ import main

        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - the log is the only place to report it
        # Not by sys.stderr: Celery has put its own in its place.
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
