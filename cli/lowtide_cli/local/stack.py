"""A whole Lowtide on this machine: Redis, emulators, workers and Flower, as child processes of one parent.

Every server listens on 127.0.0.1. The children get their settings from the environment, never from arguments, which
every user of the machine can read.
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

from lowtide_cli.local.flower import flower_command, flower_environment
from lowtide_cli.local.private import kept_secret, private_file, private_folder
from lowtide_cli.local.processes import Child, StartFailed, free_port, past_proxies
from lowtide_cli.local.redis import EmbeddedRedis
from lowtide_cli.terminal import CommandError

if TYPE_CHECKING:
    from lowtide_cli.local.google_cloud import GoogleCloud

_JOBS, _RESULTS = "lowtide.jobs", "lowtide.results"
_KEPT_LOG_BYTES = 20_000_000
_WORKER_STOPS = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 5.0))
"""A warm stop, which finishes the running tasks; then a cold one, after which another worker runs them again."""
_EMULATED = "emulated"
"""The file beside Redis' data which shows that the emulator is the provider of all that is in them."""
_CELERY = ("-m", "celery", "-A", "lowtide_worker")
_ALONE = ("--without-mingle", "--without-gossip")
"""Workers share their state in the store and need no news of each other. Mingling takes a second at each start."""


@dataclass(frozen=True)
class Shape:
    """The parts of a stack, and their options."""

    directory: Path
    """The folder of data and logs."""
    environment: Mapping[str, str]
    """The environment of all children. The stack adds the addresses of its servers."""
    redis: bool = True
    redis_port: int = 0
    """Each port that is 0 is chosen freely."""
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
    """One worker for both queues, instead of one with threads for jobs and one with processes for results."""
    threads: int = 8
    processes: int = 2
    cwd: Path | None = None
    """The folder in which the children run. None: that of this process."""


@dataclass
class Stack:
    """The running processes of a `Shape`. As a context manager it runs during the block."""

    shape: Shape
    exports: dict[str, str] = field(default_factory=dict)
    """The environment that another process needs to use this stack."""
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
        """The environment of the children."""
        own = {
            "PYTHONUNBUFFERED": "1",
            # The workers run on one host, where they cannot share a port.
            "LOWTIDE_HEALTH_PORT": "0",
        }
        # A file that provides what the stack exports would contradict it.
        files = {f"{name}_FILE" for name in self.exports}
        given = {name: value for name, value in self.shape.environment.items() if name not in files}
        return {**given, **self.exports, **past_proxies(), **own}

    @property
    def children(self) -> Iterator[Child]:
        """All children that were started, in the order in which they are stopped."""
        yield from self.workers
        for child in (self.flower, self.emulator, self.redis.child if self.redis else None):
            if child is not None:
                yield child

    @property
    def logs(self) -> Path:
        """The folder of the children's logs."""
        return self.shape.directory / "logs"

    def start(self) -> None:
        """Starts all parts and returns when they are ready. Raises `CommandError`."""
        if self.shape.redis:
            self._keep_apart()
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

    def _keep_apart(self) -> None:
        """Raises `CommandError` if jobs of the emulator would go on at Google, or jobs of Google at the emulator."""
        data = self.shape.directory / "redis"
        emulated = data / _EMULATED
        used = (data / "password").exists()
        if used and emulated.exists() != self.shape.emulator:
            theirs, other = ("the emulator", "Google, for money") if emulated.exists() else ("Google", "the emulator")
            raise CommandError(
                f"the batches in {self.shape.directory} belong to {theirs}, and would be asked again at {other}: "
                "choose another folder with --data-dir"
            )
        if self.shape.emulator and not used:
            private_folder(data)
            private_file(emulated, "The batches in this folder belong to the emulator of Gemini.\n")

    def stop(self) -> None:
        """Stops all parts, workers first and Redis last. Another Ctrl-C kills the parts that still run."""
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
        port = self.shape.emulator_port or free_port()
        self.emulator_url = f"http://127.0.0.1:{port}"
        self.exports["GOOGLE_GEMINI_BASE_URL"] = self.exports["GOOGLE_VERTEX_BASE_URL"] = self.emulator_url
        folder = self.shape.directory / "emulator"
        # Other users of the machine can connect to the port, but without the key they cannot use the emulator.
        self.exports["GOOGLE_API_KEY"] = key = kept_secret(folder / "key", lambda: secrets.token_urlsafe(24))
        serve = ["-m", "lowtide_emulator.cli", "serve", "--port", str(port), "--data-dir", str(folder)]
        # Calls to Vertex AI carry an access token and no key; the stand-ins for Google Cloud are open anyway.
        extra = {} if self.shape.cloud else {"LOWTIDE_EMULATOR_API_KEY": key}
        self.emulator = self._child("emulator", [*serve, *self.shape.emulator_options], extra=extra)
        self.emulator.start()
        return port

    def _start_workers(self) -> None:
        threads, processes = str(self.shape.threads), str(self.shape.processes)
        if self.shape.one_worker:
            self._start_worker("worker", "worker", ("-Q", f"{_JOBS},{_RESULTS}", "-P", "threads", "-c", threads))
        else:
            self._start_worker("jobs worker", "jobs", ("-Q", _JOBS, "-P", "threads", "-c", threads))
            self._start_worker("results worker", "results", ("-Q", _RESULTS, "-P", "prefork", "-c", processes))

    def _start_worker(self, name: str, node: str, options: tuple[str, ...]) -> None:
        command = [*_CELERY, "worker", *options, "-n", f"{node}@%h", "--loglevel", "INFO", *_ALONE]
        worker = self._child(name, command, stops=_WORKER_STOPS)
        self.workers.append(worker)
        worker.start()

    def _wait_for_workers(self, timeout: float = 60.0) -> None:
        from lowtide_cli.workers import worker_queues  # deferred: importing Celery takes time

        url = self.environment.get("LOWTIDE_REDIS_URL")
        wanted = {_JOBS, _RESULTS}
        deadline = time.monotonic() + timeout
        while not wanted <= {queue for queues in worker_queues(url, seconds=0.5).values() for queue in queues}:
            for worker in self.workers:
                worker.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"the workers are not ready after {timeout:g} s; see {self.workers[0].log}")

    def _start_flower(self) -> int:
        port = self.shape.flower_port or free_port()
        self.flower_url = f"http://127.0.0.1:{port}"
        _, *command = flower_command(address="127.0.0.1", port=port)
        self.flower = self._child("Flower", command, extra=flower_environment(self.shape.flower_auth))
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
        """Returns the path of a child's log. A log that has grown large is moved aside first."""
        path = self.logs / f"{name}.log"
        with suppress(FileNotFoundError):
            if path.stat().st_size > _KEPT_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        return path
