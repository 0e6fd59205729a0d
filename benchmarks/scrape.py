"""The cost of one scrape of the metrics beside many batches and 100 models: its time, and its calls of Redis.

`python -m benchmarks.scrape 100000` starts a Redis of its own, fills it with batches of one waiting job each by the
project's own scripts, and scrapes it. It needs the packages of `make setup` alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import redis
from prometheus_client import CollectorRegistry, generate_latest

from lowtide.options import Options
from lowtide.protocol import Stage, keys, new_batch_id
from lowtide.spool import Accepted, Spool
from lowtide.store import Store, Unrecorded
from lowtide_cli.local import EmbeddedRedis
from lowtide_worker.metrics.exposition import StoreCollector
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import Clock, HeldBatch, Ledger, Ordinals

_FILLERS = 2
_SCRAPES = 20
_MODELS = 100


def _fill(url: str, spool: str, batches: range) -> None:
    settings = WorkerSettings(_env_file=None, redis_url=url, spool_url=spool)
    store, client = Store(settings), redis.Redis.from_url(url)
    clock, ledger = Clock(client, settings), Ledger(client, settings)
    options = Options.checked(settings, model="gemini-3.5-flash")
    installation = store.installation(Spool(settings.spool_url))
    for _ in batches:
        batch_id = new_batch_id()
        store.register(
            [Unrecorded(batch_id, options, Accepted(100, 12000, 1600, "scrape"), "scrape", {})], installation
        )
        held = clock.begin(Stage.SUBMIT, keys.batch_member(batch_id), 0)
        assert isinstance(held, HeldBatch)
        ledger.draft(held, 1, [Ordinals(first=0, last=100)])
        ledger.plan(held, 1)


def _wait_for(client: redis.Redis, models: int) -> None:
    """Lets jobs of many models wait, which a scrape reads one by one."""
    for number in range(models):
        model, now = f"gemini-3.5-flash-tuned-{number}", time.time()
        client.zadd(keys.models("gemini"), {model: now})
        client.zadd(keys.waiting("gemini", model), {f"job-{each}": now - each * 1e10 for each in range(20)})
        client.hset(keys.live_tokens("gemini", model), mapping={f"job-{each}": 1000 for each in range(20)})
        client.set(keys.quota("gemini", model), '{"learned": 100000}')


def _calls(client: redis.Redis, registry: CollectorRegistry) -> int:
    """The calls of Redis by one scrape, without the commands of its scripts."""
    with client.monitor() as monitor:
        generate_latest(registry)
        client.echo("over")
        said = takewhile(lambda one: not one["command"].startswith("ECHO"), monitor.listen())
        return sum(one["client_type"] != "lua" for one in said)


def measure(batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedRedis(Path(folder) / "redis")
        server.start()
        try:
            spool = str(Path(folder) / "spool")
            parts = [range(first, batches, _FILLERS) for first in range(_FILLERS)]
            with ProcessPoolExecutor(_FILLERS, mp_context=get_context("spawn")) as pool:
                list(pool.map(partial(_fill, server.url, spool), parts))
            registry = CollectorRegistry()
            registry.register(StoreCollector(WorkerSettings(_env_file=None, redis_url=server.url, spool_url=spool)))
            generate_latest(registry)
            client = redis.Redis.from_url(server.url)
            _wait_for(client, _MODELS)
            times = []
            for _ in range(_SCRAPES):
                began = time.perf_counter()
                text = generate_latest(registry).decode()
                times.append(time.perf_counter() - began)
            counted = next(line for line in text.splitlines() if line.startswith("lowtide_batches{"))
            print(counted)
            print(f"calls a scrape: {_calls(client, registry)}")
            print(f"time of a scrape: median {median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms")
        finally:
            server.stop()


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
