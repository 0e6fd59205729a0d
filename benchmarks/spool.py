"""Part 6, the spool: a folder beside object stores, for one large batch, many small ones, and the operations of one.

The stores are fake-gcs-server (gs) and moto (s3) on the same machine. Their own time is part of the wall time, so the
ratios say more about Lowtide and less about a real store the slower these servers are. Each run has a new bucket.

- *End to end* is the run of part 1 with two worker processes. *results()* is its last phase, in which the user's
  process reads all stored results.
- *Small batches* is the time in which one producer submits 200 batches of five requests. No worker runs.
- *Operations* are the requests that the store gets for one batch of 50, from `submit` until the deleted batch is gone.
  A proxy counts them. Producer and workers have run a batch before. Results are not read.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from tests.faulty_http import FaultyProxy
from tests.object_stores import new_bucket, object_store
from tests.waiting import wait_until

from benchmarks import workload
from benchmarks.measure import Run, median
from benchmarks.parts import Case, Config, Found, Summary, at_most, ratio, take_turns
from benchmarks.servers import Bench, Contender, Workers
from lowtide import Batch, BatchNotFound, BatchQueue, Request
from lowtide.protocol import Queue, keys

NAME = "spool"
FOLDER, STORES = "folder", ("gs", "s3")
ALL = (FOLDER, *STORES)
OURS = ("contender", "worker")
_SMALL_BATCHES, _OF_SMALL, _COUNTED = 200, 1000, 50
"""Number of small batches, their requests together, and the requests of the batch whose operations are counted."""
_ENDPOINT = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}


@contextmanager
def _variables(env: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process, by which its clients find the store, during the block."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _renew(bench: Bench, store: str) -> None:
    bench.clear()
    if store != FOLDER:
        bench.spool_url = f"{new_bucket(store)}/spool"


def _end_to_end(bench: Bench, store: str, env: Mapping[str, str], size: int, timeout: float) -> Run:
    with _variables(env):
        _renew(bench, store)
        with Workers(bench, "lowtide_worker", 2) as workers:
            workers.warm_up()
            return Contender(bench, "run_lowtide", size).run(timeout, {"worker": workers.pid})


def _small_batches(bench: Bench, store: str, env: Mapping[str, str], timeout: float) -> Run:
    with _variables(env):
        _renew(bench, store)
        return Contender(bench, "run_lowtide", _OF_SMALL, option="submit-small").run(timeout, {})


def _operations(folder: Path, store: str, env: Mapping[str, str]) -> list[str]:
    """Returns the requests that a store gets for one batch, in their order."""
    with FaultyProxy(env[_ENDPOINT[store]]) as proxy:
        proxied = {**env, _ENDPOINT[store]: proxy.url}
        with _variables(proxied), Bench(folder, more_env=proxied) as bench:
            _renew(bench, store)
            with Workers(bench, "lowtide_worker", 2) as workers:
                workers.warm_up()
                queue = bench.queue()
                _run_and_delete(bench, queue)
                before = len(proxy.requests)
                _run_and_delete(bench, queue)
                return proxy.requests[before:]


def _run_and_delete(bench: Bench, queue: BatchQueue) -> None:
    requests = [Request(key=key, contents=text) for key, text in workload.prompts(_COUNTED)]
    batch = queue.submit(requests, model=workload.MODEL)
    batch.wait(60)
    wait_until(lambda: _rests(bench), what="the batch is cleaned up")
    batch.delete()
    wait_until(lambda: _is_gone(batch), what="the batch is gone")


def _rests(bench: Bench) -> bool:
    """Whether no job and no segment is due any more."""
    clocks = (cast("list[bytes]", bench.redis().zrange(keys.clock(queue), 0, -1)) for queue in Queue)
    due = [member for clock in clocks for member in clock]
    return not any(member.startswith((b"job:", b"segment:")) for member in due)


def _is_gone(batch: Batch) -> bool:
    try:
        batch.status()
    except BatchNotFound:
        return True
    return False


def measure(config: Config) -> dict[str, Any]:
    """Runs the part."""
    timeout = 2 * config.longest
    operations: dict[str, list[str]] = {}
    with ExitStack() as stack:
        cases = []
        for store in ALL:
            folder = config.folder / store
            folder.mkdir(parents=True)
            env = stack.enter_context(object_store(store, folder)) if store != FOLDER else {}
            if env:
                operations[store] = _operations(folder / "counted", store, env)
            bench = stack.enter_context(Bench(folder / "bench", more_env=env))
            whole = partial(_end_to_end, bench, store, env, timeout=timeout)
            cases += [Case(store, size, work=partial(whole, size=size)) for size in config.sizes]
            cases.append(Case(_small(store), _OF_SMALL, work=partial(_small_batches, bench, store, env, timeout)))
        return {"sizes": list(config.sizes), "operations": operations, "cases": take_turns(cases, config)}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found, size, operations = Found(data), max(data["sizes"]), data["operations"]
    bars = []
    for store in STORES:
        reading = ratio(_phase(found, store, size, "read"), _phase(found, FOLDER, size, "read"))
        whole = ratio(found.seconds(store, size), found.seconds(FOLDER, size))
        small = ratio(found.seconds(_small(store), _OF_SMALL), found.seconds(_small(FOLDER), _OF_SMALL))
        count = len(operations[store]) if store in operations else None
        bars += [
            at_most(f"spool, {store}: results() of {size:,} over a folder's", reading, 3, "x"),
            at_most(f"spool, {store}: end to end of {size:,} over a folder's", whole, 2, "x"),
            at_most(f"spool, {store}: {_SMALL_BATCHES} small batches submitted over a folder's", small, 3, "x"),
            at_most(f"spool, {store}: operations of one batch of {_COUNTED}", count, 12),
        ]
    peaks = [run.peak(*OURS) for store in ALL for run in found.good(store, size)]
    bars.append(at_most("spool: largest process of ours on any storage", max(peaks, default=math.nan), 200, " MiB"))
    times = ["end to end s", "results() s", "small batches s"]
    columns = ["spool", *times, "operations", "peak MiB driver / worker", "runs"]
    kinds = "; ".join(f"{store}: {_kinds(names)}" for store, names in operations.items())
    load = data["machine"]["load_before"][0]
    notes = [f"End to end and results() are of {size:,} requests. Operations of one batch of {_COUNTED}: {kinds}."]
    condition = (
        f"Measured {data['machine']['time'][:10]}, with a load average of {load:.0f} before it. With other work on the "
        "machine the times are longer, and the ratios may be lower, than on a quiet one."
    )
    rows = [_row(found, store, size, operations) for store in ALL]
    return Summary("Spool", columns, rows, bars, notes, condition)


def _small(store: str) -> str:
    return f"{store}, small batches"


def _phase(found: Found, store: str, size: int, phase: str) -> float:
    return median(run.extra["phases"][phase] for run in found.good(store, size))


def _row(found: Found, store: str, size: int, operations: Mapping[str, Sequence[str]]) -> list[str]:
    times = [found.seconds(store, size), _phase(found, store, size, "read"), found.seconds(_small(store), _OF_SMALL)]
    peaks = f"{found.peak(store, size, 'contender'):.0f} / {found.peak(store, size, 'worker'):.0f}"
    count = str(len(operations[store])) if store in operations else "-"
    return [store, *(f"{seconds:.2f}" for seconds in times), count, peaks, str(len(found.good(store, size)))]


def _kinds(requests: Sequence[str]) -> str:
    counted = Counter(request.partition(" ")[0] for request in requests)
    return ", ".join(f"{count} {method}" for method, count in sorted(counted.items()))
