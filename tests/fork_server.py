"""A server that forks workers and commands: the tests start hundreds, and most of a start is importing modules.

It imports once what does not depend on the environment, and forks. The child becomes a session of its own, takes the
environment and the streams it is given, and runs its program: from there on it is a process like any other.
Requests and replies are JSON lines on its standard input and output; at their end it kills what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from tests.waiting import wait_until

Program = Literal["celery", "lowtide"]
"""`celery` is for workers; `lowtide` is the command line."""

_WORKER = (
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
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "cffi.cparser",
    "google.genai",
    "httpcore2",
    "kombu.transport.redis",
    "lowtide.handling",
    "lowtide_worker.host.health",
    "lowtide_worker.host.memory",
    "lowtide_worker.host.monitoring",
    "lowtide_worker.host.reader",
    "lowtide_worker.host.ticker",
    "lowtide_worker.host.transport",
    "lowtide_worker.metrics.flower",
    "lowtide_worker.providers.gemini",
    "lowtide_worker.stages.clean",
    "lowtide_worker.stages.collect",
    "lowtide_worker.stages.create",
    "lowtide_worker.stages.delete",
    "lowtide_worker.stages.deliver",
    "lowtide_worker.stages.poll",
    "lowtide_worker.stages.settle",
    "lowtide_worker.stages.submit",
    "lowtide_worker.stages.sweep",
    "msgspec.json",
    "pydantic_settings",
    "redis.asyncio",
    "rich.console",
    "standardwebhooks",
)
_VERTEX_WORKER = ("google.cloud.bigquery", "google.cloud.storage", "lowtide_worker.providers.vertex.provider")
"""They take longer than all others, and most workers do without."""
_COMMAND = (
    "lowtide_cli.commands.cancel",
    "lowtide_cli.commands.dead_letters",
    "lowtide_cli.commands.delete",
    "lowtide_cli.commands.doctor",
    "lowtide_cli.commands.doctor.vertex",
    "lowtide_cli.commands.installation",
    "lowtide_cli.commands.jobs",
    "lowtide_cli.commands.list",
    "lowtide_cli.commands.results",
    "lowtide_cli.commands.status",
    "lowtide_cli.commands.submit",
    "lowtide_cli.commands.watch",
    "lowtide_cli.entry",
    "lowtide_worker.providers.gemini",
    "typer.rich_utils",
)
_MODULES: Mapping[Program, Sequence[str]] = {"celery": _WORKER, "lowtide": _COMMAND}
_BUILT_AT_IMPORT = "lowtide_worker.host.application"
"""It has the settings of the process that imports it."""


class ForkServer:
    """The server of a program, seen from a test. Safe to use from any thread."""

    def __init__(self, program: Program) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )

    def start(
        self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, streams: Sequence[Path | str]
    ) -> ForkedProcess:
        """Forks a process that runs the program; `streams` are its standard input, output and error."""
        question = {"start": list(arguments), "env": dict(env), "cwd": str(cwd), "streams": list(map(str, streams))}
        return ForkedProcess(self, int(self.ask(question)))

    def ask(self, question: Mapping[str, object]) -> Any:
        """One request and its reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Kills all processes that are left, and ends."""
        with self._process:
            pass


@cache
def shared(program: Program) -> ForkServer:
    """The one of this test process, started when it is first needed."""
    server = ForkServer(program)
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
            raise subprocess.TimeoutExpired("a forked process", timeout) from late
        return cast("int", self.returncode)

    def terminate(self) -> None:
        """Asks it to end."""
        os.kill(self.pid, signal.SIGTERM)


def _serve(program: Program) -> None:
    tempfile.gettempdir()  # remembered by all children, whatever their environment: most of them are killed
    _import_modules(_MODULES[program])
    running: set[int] = set()
    try:
        for line in sys.stdin:
            question = json.loads(line)
            reply: int | None
            if "start" in question:
                if program == "celery" and question["env"].get("LOWTIDE_PROVIDER") == "vertex":
                    _import_modules(_VERTEX_WORKER)
                reply = _fork(program, question)
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


def _import_modules(names: Sequence[str]) -> None:
    if all(name in sys.modules for name in names):
        return
    for name in names:
        importlib.import_module(name)
    assert _BUILT_AT_IMPORT not in sys.modules
    # redis-py looks its version up for each connection, and parses the whole description of its package for that.
    vars(importlib.metadata)["version"] = cache(importlib.metadata.version)
    importlib.metadata.version("redis")
    # A collection in a child would touch, and so copy, every page with objects of the parent.
    gc.collect()
    gc.freeze()


def _die_with_parent() -> None:
    """Asks the kernel for SIGKILL at the server's death, whatever its cause; elsewhere the server kills them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _fork(program: Program, question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _become(question)
        sys.argv = [program, *question["start"]]
        if program == "celery":
            from celery.__main__ import main
        else:
            sys.path[0] = question["cwd"]
            from lowtide_cli import main
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            os.write(2, f"{end.code}\n".encode())
    except BaseException:  # noqa: BLE001 - the log is the only place to report it
        # Not by sys.stderr: Celery has put its own in its place.
        os.write(2, traceback.format_exc().encode())
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()  # type: ignore[union-attr]
    os._exit(code)


def _become(question: Mapping[str, Any]) -> None:
    """Makes this child what a new process would be."""
    os.setsid()
    _die_with_parent()
    stdin, stdout, stderr = question["streams"]
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "<stdin>"), _stream(1, "<stdout>"), _stream(2, "<stderr>")
    # Celery puts its own in their place; if these are not replaced too, the files beneath are closed.
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    os.chdir(question["cwd"])
    os.environ.clear()
    os.environ.update(question["env"])
    if os.environ.get("PYTHONWARNINGS") == "default":
        warnings.simplefilter("default")
    random.seed()


def _stream(number: int, name: str) -> io.TextIOWrapper:
    """A standard stream as Python makes it: with its name, and errors that can always be written."""
    raw = io.FileIO(number, "w" if number else "r", closefd=False)
    raw.name = name
    if not number:
        return io.TextIOWrapper(io.BufferedReader(raw))
    errors = "backslashreplace" if name == "<stderr>" else "strict"
    return io.TextIOWrapper(io.BufferedWriter(raw), errors=errors, line_buffering=True)


def forget(package: str) -> None:
    """Has this process import a package anew."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


if __name__ == "__main__":
    _serve(cast("Program", sys.argv[1]))
