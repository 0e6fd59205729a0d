"""Workers are scaled by the backlog: it shows in the metrics that a scaler reads, whatever the queue's list holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide.protocol import Queue
from lowtide_worker.metrics.exposition import StoreCollector

SCALER = Path(__file__).parents[2] / "deploy" / "helm" / "lowtide" / "templates" / "scaledobject.yaml"
BATCHES = 6


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        yield stack


def test_a_backlog_without_its_last_worker_shows_and_a_new_worker_drains_it(stack: Stack) -> None:
    registry = CollectorRegistry()
    registry.register(StoreCollector(stack.worker_settings()))
    [line] = [line for line in SCALER.read_text().splitlines() if "+" in line and "query:" in line]
    names = re.findall(r"max\((\w+)\{", line)

    def value(name: str) -> float:
        found = registry.get_sample_value(name, {"queue": str(Queue.RESULTS)})
        assert found is not None, name
        return found

    def backlog() -> float:
        return sum(map(value, names))

    stack.worker("-Q", Queue.JOBS, "-P", "threads", "-c", "4")
    last = stack.worker("-Q", Queue.RESULTS, "-P", "prefork", "-c", "1")
    assert stack.queue().submit(blurbs(1), model=MODEL).wait(timeout=180).succeeded == 1
    wait_until(lambda: backlog() == 0, what="no backlog")

    with stack.held_jobs():
        batches = [stack.queue().submit(blurbs(1), model=MODEL) for _ in range(BATCHES)]
        last.kill()
    # The worker that is left keeps both clocks.
    wait_until(lambda: backlog() >= BATCHES, what="the backlog shows")
    wait_until(lambda: value("lowtide_clock_lag_seconds") > 0, what="the lag shows")

    stack.worker("-Q", Queue.RESULTS, "-P", "prefork", "-c", "1")

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [1] * BATCHES
    wait_until(lambda: backlog() == 0, what="the backlog is drained")
