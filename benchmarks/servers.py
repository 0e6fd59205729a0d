"""The servers and workers that the contenders run against: all on 127.0.0.1, all ended with the bench.

The emulator is a process of its own, so that its time and memory can be told from the contenders'.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
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
    # The default tick is a second; a poll interval of half a second needs a finer one.
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.1",
    "GEMINI_API_KEY": workload.API_KEY,
}
"""Lowtide's defaults, but for the poll interval that all contenders share."""
_WARM_CPU_SECONDS = 0.35
_WARM_ROUNDS = 6
_WARM_PATIENCE_SECONDS = 30.0


class Bench:
    """A folder, a Redis and an emulator for one part of the bench."""

    def __init__(self, folder: Path, *, answer_function: str | None = None) -> None:
        self.folder = folder
        self._answer_function = answer_function
        self._stack = ExitStack()
        self.redis_server = EmbeddedRedis(folder / "redis")
        self.emulator_port = free_port()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(self.redis_server)
        command = [
            sys.executable, "-m", "lowtide_emulator.cli", "serve", "--port", str(self.emulator_port),
            "--pending-seconds", "0", "--running-seconds", "0", "--max-active-jobs", "1000",
            "--data-dir", str(self.folder / "emulator"),
        ]  # fmt: skip
        if self._answer_function:
            command += ["--answer-function", self._answer_function]
        self._emulator = Child("emulator", command, log=self.folder / "emulator.log", env=self.env(), cwd=ROOT)
        self._emulator.start()
        self._stack.callback(self._emulator.stop)
        self._emulator.wait_for_port(self.emulator_port)
        self._http = self._stack.enter_context(httpx.Client(base_url=self.emulator_url, timeout=60))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def emulator_url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.emulator_port}"

    @property
    def spool(self) -> Path:
        """Where Lowtide's payloads lie."""
        return self.folder / "spool"

    @property
    def pids(self) -> dict[str, int]:
        """The servers, by role."""
        found = {"emulator": self._emulator.pid, "Redis": self.redis_server.pid}
        return {role: pid for role, pid in found.items() if pid is not None}

    def env(self, **more: str) -> dict[str, str]:
        """The environment of every process of the bench."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "LOWTIDE_REDIS_URL": self.redis_server.url,
            "LOWTIDE_SPOOL_URL": str(self.spool),
            "GOOGLE_GEMINI_BASE_URL": self.emulator_url,
            **more,
        }

    def redis(self) -> redis.Redis:
        """A client of the bench's Redis."""
        return redis.Redis.from_url(self.redis_server.url)

    def queue(self) -> BatchQueue:
        """A producer in this process."""
        return BatchQueue(Settings(_env_file=None, redis_url=self.redis_server.url, spool_url=str(self.spool)))

    def stats(self) -> dict[str, Any]:
        """The emulator's counters."""
        found: dict[str, Any] = self._http.get("/_emulator/stats").json()
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """The emulator's record of its jobs."""
        found: list[dict[str, Any]] = self._http.get("/_emulator/jobs").json()
        return found

    def clear(self) -> None:
        """Empties emulator, Redis and spool, so that every run begins alike."""
        self._http.post("/_emulator/reset")
        self.redis().flushall()
        shutil.rmtree(self.spool, ignore_errors=True)


class Workers:
    """A `celery worker` with its child processes, ready and warm."""

    def __init__(
        self, bench: Bench, app: str, processes: int, *, role: str = "worker", options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._bench = bench
        self.role = role
        self.log = bench.folder / f"{role.replace(' ', '-')}.log"
        self.log.unlink(missing_ok=True)
        self.processes = processes
        command = [
            sys.executable, "-m", "celery", "-A", app, "worker", "-l", "info", "-c", str(processes),
            "-n", f"{role.replace(' ', '-')}@%h", "--without-gossip", "--without-mingle", *options,
        ]  # fmt: skip
        environment = bench.env(**LOWTIDE_ENV | dict(env or {}))
        self.child = Child(
            role, command, log=self.log, env=environment, cwd=ROOT,
            stops=((signal.SIGTERM, 10.0), (signal.SIGQUIT, 2.0)),
        )  # fmt: skip

    def __enter__(self) -> Self:
        began = time.monotonic()
        self.child.start()
        while " ready." not in self.log.read_text(errors="replace"):
            self.child.check_alive()
            if time.monotonic() - began > 60:
                raise TimeoutError(f"{self.role} is not ready, see {self.log}")
            time.sleep(0.02)
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    @property
    def pid(self) -> int:
        """Of the parent process."""
        if self.child.pid is None:
            raise RuntimeError(f"{self.role} does not run")
        return self.child.pid

    def warm_up(self) -> None:
        """Runs tiny batches until every child has imported what it needs, as a worker that runs for days has."""
        queue = self._bench.queue()
        for _ in range(_WARM_ROUNDS):
            requests = [Request(key=key, contents=text) for key, text in workload.prompts(4)]
            batches = [queue.submit(requests, model=workload.MODEL) for _ in range(2 * self.processes)]
            for batch in batches:
                try:
                    batch.wait(_WARM_PATIENCE_SECONDS, poll_seconds=0.05)
                except WaitTimeout as error:
                    log = "\n".join(self.child.last_lines(30))
                    raise RuntimeError(f"{self.role} does not get warm: {error}; its log ends:\n{log}") from error
            if all(_cpu(child) > _WARM_CPU_SECONDS for child in psutil.Process(self.pid).children()):
                return


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Contender:
    """One run of a contender's module in a process of its own."""

    def __init__(
        self, bench: Bench, module: str, size: int, *, option: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self._bench, self._size = bench, size
        folder = bench.folder / "contender"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._log = (bench.folder / f"{module}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", "--size", str(size), "--url", bench.emulator_url,
             "--folder", str(folder), "--option", option],
            env=bench.env(**(env or {})), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.import_seconds = 0.0

    def run(self, timeout: float, watched: Mapping[str, int]) -> Run:
        """Lets it run once and measures it, the servers and the `watched` processes."""
        try:
            ready = self._hear(120)
            if "ready" not in ready:
                return Run(0.0, error=ready.get("error", "it did not get ready"))
            before, jobs_before = self._bench.stats(), len(self._bench.jobs())
            watch = Watch({"contender": self._process.pid, **self._bench.pids, **watched})
            warm_memory(self._size)
            watch.start()
            self._say("go")
            report = self._hear(timeout)
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

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _hear(self, timeout: float) -> dict[str, Any]:
        """The next thing it says; an error in its place where it ends or takes too long."""
        assert self._process.stdout is not None
        began = time.monotonic()
        timer = _kill_after(self._process, timeout)
        line = self._process.stdout.readline()
        late = timer()
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
        if self._process.poll() is None:
            self._process.stdin.close() if self._process.stdin else None
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _kill_after(process: subprocess.Popen[str], seconds: float) -> Any:
    import threading

    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()

    def done() -> bool:
        timer.cancel()
        return late.is_set()

    return done


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds during which at least one job was at work."""
    total, end = 0.0, 0.0
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


class Counter:
    """Counts across processes without a lock: each process adds to a file of its own, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def slot(self) -> memoryview:
        """This process's own number, to be counted up."""
        import mmap

        path = self._folder / str(os.getpid())
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    def total(self) -> int:
        """All of them."""
        return sum(int.from_bytes(path.read_bytes(), sys.byteorder) for path in self._folder.iterdir())

    def clear(self) -> None:
        """Sets all to nothing; the processes that count must be gone."""
        for path in self._folder.iterdir():
            path.unlink()
