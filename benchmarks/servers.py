"""The servers and workers of the benchmarks, all on 127.0.0.1, and the processes of the contenders.

They are child processes of `lowtide_cli.local`. The emulator is a separate process, so that its time and memory are not
counted as a contender's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import redis

from benchmarks import workload
from benchmarks.measure import Run, Watch, warm_memory
from lowtide import BatchQueue, Request, Settings, WaitTimeout
from lowtide_cli.local import Child, EmbeddedRedis, free_port

ROOT = Path(__file__).parent.parent
LOWTIDE_ENV = {
    "LOWTIDE_POLL_FIRST_SECONDS": str(workload.POLL_SECONDS),
    "LOWTIDE_POLL_MAX_SECONDS": str(workload.POLL_SECONDS),
    "LOWTIDE_POLL_FACTOR": "1",
    # The default tick is a second. A poll interval of half a second needs a shorter one.
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.1",
    "GEMINI_API_KEY": workload.API_KEY,
}
"""Lowtide's default settings, except for the poll interval, which all contenders share."""
_WARM_CPU_SECONDS = 0.35
_WARM_ROUNDS = 6
_WARM_TIMEOUT_SECONDS = 30.0


class Bench:
    """A folder, a Redis and an emulator for one part of the benchmarks.

    `more_env` are variables of every process. `running_seconds` is the time that each provider job takes.
    `spool_url` is the place of Lowtide's payloads, by default a folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        answer_function: str | None = None,
        more_env: Mapping[str, str] | None = None,
        running_seconds: float = 0,
    ) -> None:
        self.folder = folder
        self.spool_url = str(folder / "spool")
        self._more_env = dict(more_env or {})
        self._answer_function = answer_function
        self._running_seconds = running_seconds
        self._stack = ExitStack()
        self.redis_server = EmbeddedRedis(folder / "redis")
        self.emulator_port = free_port()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(self.redis_server)
        options = {
            "--port": str(self.emulator_port),
            "--pending-seconds": "0",
            "--running-seconds": f"{self._running_seconds:g}",
            "--max-active-jobs": "1000",
            "--data-dir": str(self.folder / "emulator"),
        }
        if self._answer_function:
            options["--answer-function"] = self._answer_function
        command = ["lowtide_emulator.cli", "serve", *(word for option in options.items() for word in option)]
        self._emulator = self._stack.enter_context(self.server("emulator", command, self.emulator_port))
        self._http = self._stack.enter_context(httpx.Client(base_url=self.emulator_url, timeout=60))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def server(self, name: str, command: Sequence[str], port: int, **env: str) -> Iterator[Child]:
        """Runs a Python module, with its arguments, as a server on a port during the block.

        `env` are variables of its own.
        """
        log = self.folder / f"{name}.log"
        child = Child(name, [sys.executable, "-m", *command], log=log, env=self.env(**env), cwd=ROOT)
        child.start()
        try:
            child.wait_for_port(port)
            yield child
        finally:
            child.stop()

    @property
    def emulator_url(self) -> str:
        """The emulator's URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.emulator_port}"

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the servers, by role."""
        found = {"emulator": self._emulator.pid, "Redis": self.redis_server.pid}
        return {role: pid for role, pid in found.items() if pid is not None}

    def env(self, **more: str) -> dict[str, str]:
        """Returns the environment of every process of the benchmarks."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "LOWTIDE_REDIS_URL": self.redis_server.url,
            "LOWTIDE_SPOOL_URL": self.spool_url,
            "GOOGLE_GEMINI_BASE_URL": self.emulator_url,
            **self._more_env,
            **more,
        }

    def redis(self) -> redis.Redis:
        """Returns a client of the Redis."""
        return redis.Redis.from_url(self.redis_server.url)

    def queue(self) -> BatchQueue:
        """Returns a producer in this process."""
        return BatchQueue(Settings(_env_file=None, redis_url=self.redis_server.url, spool_url=self.spool_url))

    def stats(self) -> dict[str, Any]:
        """Returns the emulator's counters."""
        found: dict[str, Any] = self._http.get("/_emulator/stats").json()
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """Returns the emulator's record of its jobs."""
        found: list[dict[str, Any]] = self._http.get("/_emulator/jobs").json()
        return found

    def clear(self) -> None:
        """Empties emulator, Redis and the spool's folder, so that every run starts from the same state."""
        self._http.post("/_emulator/reset")
        self.redis().flushall()
        shutil.rmtree(self.folder / "spool", ignore_errors=True)


class Workers:
    """A `celery worker` with its child processes, ready and warm."""

    def __init__(
        self,
        bench: Bench,
        app: str,
        processes: int,
        *,
        role: str = "worker",
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._bench = bench
        self.role = role
        self.log = bench.folder / f"{role.replace(' ', '-')}.log"
        self.log.unlink(missing_ok=True)
        self.processes = processes
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "info", "-c", str(processes)]
        command += ["-n", f"{role.replace(' ', '-')}@%h", "--without-gossip", "--without-mingle", *options]
        environment = bench.env(**LOWTIDE_ENV | dict(env or {}))
        stops = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 2.0))
        self.child = Child(role, command, log=self.log, env=environment, cwd=ROOT, stops=stops)

    def __enter__(self) -> Self:
        began = time.monotonic()
        self.child.start()
        self.child.wait_until(lambda: self.child.has_logged(b" ready."), "become ready", timeout=60)
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    @property
    def pid(self) -> int:
        """The process id of the parent process."""
        if self.child.pid is None:
            raise RuntimeError(f"{self.role} is not running")
        return self.child.pid

    def warm_up(self) -> None:
        """Runs tiny batches until every child has imported its modules, as in a worker that has run for days."""
        queue = self._bench.queue()
        for _ in range(_WARM_ROUNDS):
            requests = [Request(key=key, contents=text) for key, text in workload.prompts(4)]
            batches = [queue.submit(requests, model=workload.MODEL) for _ in range(2 * self.processes)]
            for batch in batches:
                try:
                    batch.wait(_WARM_TIMEOUT_SECONDS)
                except WaitTimeout as error:
                    log = "\n".join(self.child.last_lines(30))
                    raise RuntimeError(f"{self.role} does not warm up: {error}; the end of its log:\n{log}") from error
            if all(_cpu(child) > _WARM_CPU_SECONDS for child in psutil.Process(self.pid).children()):
                return


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Contender:
    """One run of a contender's module in its own process. It uses the protocol of `benchmarks.contender`."""

    def __init__(
        self, bench: Bench, module: str, size: int, *, option: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self._bench, self._size = bench, size
        folder = bench.folder / "contender"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        command = [sys.executable, "-m", f"benchmarks.{module}", "--size", str(size), "--url", bench.emulator_url]
        command += ["--folder", str(folder), "--option", option]
        log = bench.folder / f"{module}.log"
        self._child = Child(module, command, log=log, env=bench.env(**(env or {})), cwd=ROOT, piped=True)
        self._child.start()
        self._process = self._child.process

    def run(self, timeout: float, watched: Mapping[str, int]) -> Run:
        """Runs it once, and measures it, the servers and the `watched` processes."""
        try:
            ready = self._receive(120)
            if "ready" not in ready:
                return Run(0.0, error=ready.get("error", "it did not become ready"))
            before, jobs_before = self._bench.stats(), len(self._bench.jobs())
            watch = Watch({"contender": self._process.pid, **self._bench.pids, **watched})
            warm_memory(self._size)
            watch.start()
            self._send("go")
            report = self._receive(timeout)
            uses = watch.stop()
            after, jobs = self._bench.stats(), self._bench.jobs()[jobs_before:]
            extra = {
                "import_cpu_seconds": ready["import_seconds"],
                "characters": report.get("characters", 0),
                "phases": report.get("phases", {}),
                "emulator_busy_seconds": after["busy_seconds"] - before["busy_seconds"],
                "emulator_answer_seconds": after["answer_seconds"] - before["answer_seconds"],
                "emulator_job_seconds": _covered([(job["created"], job["ended"]) for job in jobs if job["ended"]]),
                "emulator_calls": sum(after["calls"].values()) - sum(before["calls"].values()),
            }
            return Run(report["seconds"], report.get("rows", 0), report.get("error"), uses, extra)
        finally:
            self._end()

    def _send(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()

    def _receive(self, timeout: float) -> dict[str, Any]:
        """Returns its next message, or an error in its place if it ends or takes too long."""
        assert self._process.stdout is not None
        began = time.monotonic()
        cancel_kill = _kill_after(self._process.kill, timeout)
        line = self._process.stdout.readline()
        late = cancel_kill()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        seconds = time.monotonic() - began
        if late:
            return {"seconds": seconds, "error": f"not done after {timeout:.0f} s; ended"}
        code = self._process.wait()
        words = "killed, most likely out of memory" if code == -signal.SIGKILL else f"exit code {code}"
        return {"seconds": seconds, "error": f"the process ended: {words}"}

    def _end(self) -> None:
        """Lets it end by itself, which it does when its standard input is closed, and kills it after five seconds."""
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(TimeoutExpired):
                self._process.wait(5)
        self._child.kill()


def _kill_after(kill: Callable[[], None], seconds: float) -> Callable[[], bool]:
    """Calls `kill` after some seconds. Returns a function that cancels this, and returns whether it was too late."""
    late = threading.Event()

    def end() -> None:
        late.set()
        kill()

    timer = threading.Timer(seconds, end)
    timer.start()

    def cancel() -> bool:
        timer.cancel()
        return late.is_set()

    return cancel


def _covered(spans: list[tuple[float, float]]) -> float:
    """Returns the seconds during which at least one job was running."""
    total, end = 0.0, 0.0
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


class Counter:
    """A counter for several processes, without a lock: each process counts in its own file, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def slot(self) -> memoryview:
        """Returns this process's own number, for the caller to increase."""
        import mmap

        path = self._folder / str(os.getpid())
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    def total(self) -> int:
        """Returns the sum over all processes."""
        return sum(int.from_bytes(path.read_bytes(), sys.byteorder) for path in self._folder.iterdir())

    def clear(self) -> None:
        """Sets the count to 0. The processes that count must have ended."""
        for path in self._folder.iterdir():
            path.unlink()
