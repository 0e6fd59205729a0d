"""A whole Lowtide on this machine: server, emulators, workers and Flower, as child processes of one parent.

Everything listens on 127.0.0.1. What the children need to know stands in their environment, never in their
command lines, which every user of the machine can read.
"""

from __future__ import annotations

import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lowtide_cli.embedded import EmbeddedRedis
from lowtide_cli.private import private_folder
from lowtide_cli.processes import Child, StartFailed, free_port, past_proxies

if TYPE_CHECKING:
    from lowtide_cli.google_cloud import GoogleCloud

_JOBS, _RESULTS = "lowtide.jobs", "lowtide.results"
_COLUMNS = "name,kwargs,state,result,received,runtime,worker,uuid"
"""What Flower's list of tasks shows: whose task it is and what came of it, before the task's random id."""
_KEPT_LOG_BYTES = 20_000_000
_WORKER_STOPS = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 5.0))
"""A warm stop, which finishes what runs; then a cold one, after which another worker does it again."""


@dataclass(frozen=True)
class Shape:
    """What a stack is made of."""

    directory: Path
    """Data and logs."""
    environment: Mapping[str, str]
    """Of all children; what the stack finds out is added."""
    redis: bool = True
    redis_port: int = 0
    cloud: GoogleCloud | None = None
    """Stand-ins for Cloud Storage and BigQuery, not yet started."""
    emulator: bool = True
    emulator_port: int = 0
    emulator_options: tuple[str, ...] = ()
    flower: bool = True
    flower_port: int = 0
    flower_auth: str = ""
    """`user:password`."""
    one_worker: bool = False
    """One worker for both queues, instead of threads for one and processes for the other."""
    threads: int = 8
    processes: int = 2
    cwd: Path | None = None


@dataclass
class Stack:
    """The running processes of a `Shape`. As a context manager it runs within the block."""

    shape: Shape
    exports: dict[str, str] = field(default_factory=dict)
    """What another process must have in its environment to use this stack."""
    redis: EmbeddedRedis | None = None
    emulator: Child | None = None
    emulator_url: str | None = None
    flower: Child | None = None
    flower_url: str | None = None
    workers: list[Child] = field(default_factory=list)

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The children's environment."""
        return {**self.shape.environment, **self.exports, **past_proxies(), "PYTHONUNBUFFERED": "1"}

    @property
    def children(self) -> Iterator[Child]:
        """All that were started, in the order of an orderly stop."""
        yield from self.workers
        for child in (self.flower, self.emulator, self.redis.child if self.redis else None):
            if child is not None:
                yield child

    def start(self) -> None:
        """Starts everything; returns when all of it serves. Raises `CommandError`."""
        if self.shape.redis:
            self.redis = EmbeddedRedis(
                self.shape.directory / "redis", self.shape.redis_port, log=self._fresh_log("redis")
            )
            self.redis.start()
            self.exports["LOWTIDE_REDIS_URL"] = self.redis.url
        if self.shape.cloud:
            self.shape.cloud.start()
            self.exports |= self.shape.cloud.environment
        emulator_port = self._start_emulator() if self.shape.emulator else 0
        self._start_workers()
        flower_port = self._start_flower() if self.shape.flower else 0
        if self.emulator:
            self.emulator.wait_for_port(emulator_port)
        self._wait_for_workers()
        if self.flower:
            self.flower.wait_for_port(flower_port)

    def stop(self) -> None:
        """Ends everything: workers first, the server last. A second Ctrl-C ends what is left at once."""
        hurry = False
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.ask()
        for child in self.children:
            try:
                if hurry:
                    child.kill()
                else:
                    child.stop()
            except KeyboardInterrupt:
                hurry = True
                child.kill()
        if self.shape.cloud:
            self.shape.cloud.stop()

    def _start_emulator(self) -> int:
        port = free_port(self.shape.emulator_port)
        self.emulator_url = f"http://127.0.0.1:{port}"
        # A key of this run alone: other users of the machine can reach the port, but not what lies behind it.
        self.exports["GOOGLE_API_KEY"] = key = secrets.token_urlsafe(24)
        self.exports["GOOGLE_GEMINI_BASE_URL"] = self.exports["GOOGLE_VERTEX_BASE_URL"] = self.emulator_url
        folder = self.shape.directory / "emulator"
        private_folder(folder)
        self.emulator = self._child(
            "emulator",
            [
                "-m", "lowtide_emulator.cli", "serve", "--port", str(port), "--data-dir", str(folder),
                *self.shape.emulator_options,
            ],
            # Calls to Vertex AI carry a token of Google's instead; its stand-ins for storage are open anyway.
            extra={} if self.shape.cloud else {"LOWTIDE_EMULATOR_API_KEY": key},
        )  # fmt: skip
        self.emulator.start()
        return port

    def _start_workers(self) -> None:
        threads, processes = str(self.shape.threads), str(self.shape.processes)
        wanted = (
            [("worker", f"{_JOBS},{_RESULTS}", "threads", threads)]
            if self.shape.one_worker
            else [("jobs", _JOBS, "threads", threads), ("results", _RESULTS, "prefork", processes)]
        )
        for name, queues, pool, concurrency in wanted:
            worker = self._child(
                name if self.shape.one_worker else f"{name} worker",
                [
                    *_CELERY, "worker", "-Q", queues, "-P", pool, "-c", concurrency, "-n", f"{name}@%h",
                    "--loglevel", "INFO", *_ALONE,
                ],
                stops=_WORKER_STOPS,
            )  # fmt: skip
            self.workers.append(worker)
            worker.start()

    def _wait_for_workers(self, timeout: float = 60.0) -> None:
        from lowtide_cli.workers import worker_queues  # deferred: Celery takes its time to import

        url = self.environment.get("LOWTIDE_REDIS_URL")
        wanted = {_JOBS, _RESULTS}
        deadline = time.monotonic() + timeout
        while not wanted <= {queue for queues in worker_queues(url, seconds=0.5).values() for queue in queues}:
            for worker in self.workers:
                worker.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"the workers are not ready after {timeout:g} s; see {self.workers[0].log}")

    def _start_flower(self) -> int:
        port = free_port(self.shape.flower_port)
        self.flower_url = f"http://127.0.0.1:{port}"
        self.flower = self._child(
            "Flower",
            [
                *_CELERY,
                "flower",
                "--address=127.0.0.1",
                f"--port={port}",
                "--max_tasks=20000",
                f"--tasks_columns={_COLUMNS}",
            ],
            # In the environment and not an argument: `ps` shows arguments to everybody.
            extra={"FLOWER_BASIC_AUTH": self.shape.flower_auth},
        )
        self.flower.start()
        return port

    def _child(
        self,
        name: str,
        arguments: list[str],
        *,
        extra: Mapping[str, str] | None = None,
        stops: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 5.0),),
    ) -> Child:
        return Child(
            name,
            [sys.executable, *arguments],
            log=self._fresh_log(name.lower().replace(" ", "-")),
            env={**self.environment, **(extra or {})},
            cwd=self.shape.cwd,
            stops=stops,
        )

    def _fresh_log(self, name: str) -> Path:
        """Where a child's log goes; a log that has grown large makes room once, at the start."""
        path = self.logs / f"{name}.log"
        with suppress(FileNotFoundError):
            if path.stat().st_size > _KEPT_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        return path

    @property
    def logs(self) -> Path:
        """The folder of the children's logs."""
        return self.shape.directory / "logs"


_ALONE = ("--without-mingle", "--without-gossip")
"""Workers need not know of each other: the store tells them all. Asking around would cost a second at each start."""
_CELERY = ("-m", "celery", "-A", "lowtide_worker")


def generated_password() -> str:
    """A password for one run of Flower."""
    return secrets.token_urlsafe(12)
