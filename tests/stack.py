"""A whole Lowtide on this machine: a real Redis-compatible server, the emulator over HTTP, real worker processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

import redis

from lowtide import BatchQueue, Settings
from lowtide.protocol import Queue, keys
from lowtide.states import ProviderName
from lowtide_cli.local import EmbeddedRedis, end, kill
from lowtide_emulator import Emulator
from lowtide_emulator import Settings as EmulatorSettings
from lowtide_worker.settings import WorkerSettings
from tests import certificates, fork_server
from tests.cloud import PROJECT, Cloud
from tests.ports import quiet_port
from tests.waiting import wait_until

FAST = {
    "LOWTIDE_POLL_FIRST_SECONDS": "0.2",
    "LOWTIDE_POLL_MAX_SECONDS": "1",
    "LOWTIDE_RETRY_FIRST_SECONDS": "0.2",
    "LOWTIDE_RETRY_MAX_SECONDS": "1",
    "LOWTIDE_QUOTA_FIRST_SECONDS": "0.3",
    "LOWTIDE_QUOTA_MAX_SECONDS": "1",
    "LOWTIDE_PROVIDER_TIMEOUT_SECONDS": "5",
    "LOWTIDE_CREATE_SETTLE_SECONDS": "1",
    "LOWTIDE_OUTPUT_GRACE_SECONDS": "2",
    "LOWTIDE_MISSING_JOB_SECONDS": "3",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.25",
    "LOWTIDE_LEASE_SECONDS": "3",
    "LOWTIDE_DELIVERY_RETRY_FIRST_SECONDS": "0.2",
    "LOWTIDE_LINGER_SECONDS": "0.3",
}
"""Settings that shorten hours to moments."""


class Worker:
    """A worker of Celery's, forked from a process that has imported the modules: `tests/fork_server.py`.

    `command` are the arguments of `celery`. The constructor waits until the worker is ready, or dead.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.touch()
        self.process = fork_server.shared("celery").start(
            command, env=env, cwd=log.parent, streams=(os.devnull, log, log)
        )
        wait_until(lambda: self.ready or not self.alive, what=f"worker ready, see {log}")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ready(self) -> bool:
        return " ready." in self.text

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def stands_still(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL."""
        return self.process.poll() == -signal.SIGKILL

    def children(self) -> list[int]:
        """The processes of its pool."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def stop(self, timeout: float = 60) -> int | None:
        """Stops it warm, and kills it after `timeout` seconds. Returns its exit code."""
        end(self.process, ((signal.SIGTERM, timeout),))
        return self.process.returncode

    def kill(self) -> None:
        """Kills the parent and all its children, like a power cut."""
        kill(self.process)


class Stack:
    """The servers. The test starts the workers."""

    def __init__(
        self, directory: Path, emulator: EmulatorSettings | None = None, *, cloud: Cloud | None = None, **env: str
    ) -> None:
        self.directory = directory
        self.redis_server = EmbeddedRedis(directory / "redis", quiet_port())
        self.emulator = Emulator(
            emulator or EmulatorSettings(),
            storage_url=cloud.storage_url if cloud else None,
            bigquery_url=cloud.bigquery_url if cloud else None,
        )
        self.workers: list[Worker] = []
        self.cloud = cloud
        self.provider = ProviderName.VERTEX if cloud else ProviderName.GEMINI
        self._env = env

    def __enter__(self) -> Self:
        self.redis_server.start()
        self.emulator.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.kill()
        self.emulator.__exit__(kind, error, trace)
        self.redis_server.stop()

    @contextmanager
    def held_jobs(self) -> Iterator[None]:
        """Keeps the provider's jobs that are created meanwhile running: a fault comes before the work can end."""
        engine, over = self.emulator._engine, Event()
        submit = engine.submit

        def held(work: Callable[[], None]) -> None:
            def later() -> None:
                over.wait()
                work()

            submit(later)

        vars(engine)["submit"] = held
        try:
            yield
        finally:
            del vars(engine)["submit"]
            over.set()

    def limit_tokens(self, limit: int | None) -> None:
        """Changes the provider's quota of enqueued tokens, which is the same for each model; None: there is none."""
        vars(self.emulator._engine.quotas)["_limits"] = {} if limit is None else {"*": limit}

    @cached_property
    def bucket(self) -> str:
        """The bucket for the files of jobs on Vertex AI, and for those of users."""
        assert self.cloud
        return self.cloud.new_bucket()

    @cached_property
    def dataset(self) -> str:
        """The dataset for the tables of jobs on Vertex AI, and for those of users, as `project.dataset`."""
        assert self.cloud
        return self.cloud.new_dataset()

    @cached_property
    def _provider_env(self) -> dict[str, str]:
        if self.cloud is None:
            return {"GEMINI_API_KEY": "test-key", "GOOGLE_GEMINI_BASE_URL": self.emulator.url}
        return {
            "LOWTIDE_PROVIDER": "vertex",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_VERTEX_BASE_URL": self.emulator.url,
            "STORAGE_EMULATOR_HOST": self.cloud.storage_url,
            "BIGQUERY_EMULATOR_HOST": self.cloud.bigquery_url,
            "LOWTIDE_VERTEX_CREDENTIALS": "anonymous",
            "LOWTIDE_VERTEX_STORAGE": f"gs://{self.bucket}/jobs",
            "LOWTIDE_VERTEX_DATASET": f"bq://{self.dataset}",
            "LOWTIDE_VERTEX_LOCATIONS": json.dumps([f"gs://{self.bucket}/user", f"bq://{self.dataset}"]),
        }

    @property
    def env(self) -> dict[str, str]:
        """The environment of a worker."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "SSL_CERT_FILE": str(certificates.ONE),
            "LOWTIDE_REDIS_URL": self.redis_server.url,
            "LOWTIDE_SPOOL_URL": str(self.directory / "spool"),
            **self._provider_env,
            **FAST,
            **self._env,
        }

    def worker(self, *options: str, app: str = "lowtide_worker", **env: str) -> Worker:
        """Starts a worker and waits until it is ready."""
        log = self.directory / f"worker-{len(self.workers)}.log"
        command = ["-A", app, "worker", "-l", "info", "-n", f"w{len(self.workers)}@%h"]
        # Otherwise it asks for a second, at its start, whether there are others.
        command += ["--without-mingle", "--without-gossip"]
        worker = Worker([*command, *(options or ("-c", "2"))], self.env | env, log)
        self.workers.append(worker)
        assert worker.alive, worker.text
        return worker

    def settings(self, **changes: Any) -> Settings:
        """Returns a producer's settings."""
        given = {"redis_url": self.redis_server.url, "spool_url": self.env["LOWTIDE_SPOOL_URL"]}
        return Settings(_env_file=None, **(given | _as_settings(self._provider_env) | changes))

    def worker_settings(self, **changes: Any) -> WorkerSettings:
        """Returns a worker's settings, for code that a test runs in its own process."""
        return WorkerSettings(_env_file=None, **(_as_settings(self.env) | changes))

    def queue(self, **changes: Any) -> BatchQueue:
        """Returns a producer."""
        return BatchQueue(self.settings(**changes))

    @property
    def redis(self) -> redis.Redis:
        """A client of the stack's own server. Tests that poll would spend more time on connecting than on asking."""
        return _client(self.redis_server.url)

    @property
    def installation(self) -> str:
        """The id that Redis and the spool share."""
        known = self.redis.get(keys.INSTALLATION)
        assert isinstance(known, bytes)
        return known.decode().partition(" ")[0]

    def put_off_sweep(self) -> None:
        """Waits for the end of a sweep that is under way, and puts the next off: it takes what a test leaves."""
        clock, at_work = keys.clock(Queue.JOBS), float(self.env["LOWTIDE_LEASE_SECONDS"]) + 1

        def is_over() -> bool:
            due = self.redis.zscore(clock, keys.SWEEP_MEMBER)
            return isinstance(due, float) and due > time.time() + at_work

        wait_until(is_over, what="no sweep is under way")
        self.redis.zadd(clock, {keys.SWEEP_MEMBER: time.time() + 3600})

    def empty_redis(self) -> None:
        """Removes every key except the installation's id, so that Redis still belongs to the spool."""
        known = self.redis.get(keys.INSTALLATION)
        self.redis.flushdb()
        if isinstance(known, bytes):
            self.redis.set(keys.INSTALLATION, known)

    def logs(self) -> str:
        """Returns the logs of all workers."""
        return "\n".join(worker.text for worker in self.workers)


@cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def _as_settings(env: Mapping[str, str]) -> dict[str, Any]:
    """Returns environment variables as arguments of a settings class."""
    settings: dict[str, Any] = {}
    for name, value in env.items():
        if name.startswith("LOWTIDE_"):
            settings[name.removeprefix("LOWTIDE_").lower()] = json.loads(value) if value.startswith("[") else value
        elif name.startswith(("GOOGLE_", "GEMINI_")):
            settings[name] = value
    return settings
