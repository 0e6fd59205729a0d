"""Metrics: a scrape shows what is in the store, whatever happened on the way, for a bounded number of commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.census import assert_right, scanned
from tests.integration.blurbs import MODEL, blurbs
from tests.ports import quiet_port
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchQueue
from lowtide.protocol import Queue, keys
from lowtide_worker.metrics.catalogue import CATALOGUE, Kind
from lowtide_worker.metrics.exposition import StoreCollector
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import scripts

Scrape = Callable[..., float | None]
_open = build_opener(ProxyHandler({})).open


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("metrics"), LOWTIDE_MAX_DELIVERY_ATTEMPTS="1") as stack:
        stack.worker("-P", "threads", "-c", "4", LOWTIDE_SEGMENT_ROWS="5")
        yield stack


@pytest.fixture(autouse=True)
def no_faults(stack: Stack) -> Iterator[None]:
    yield
    stack.emulator.set_faults([])


@pytest.fixture
def scrape(stack: Stack) -> Scrape:
    """The value of a metric in a new scrape; None where it is absent."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(stack.worker_settings()))
    return lambda name, **labels: registry.get_sample_value(name, labels)


def test_a_finished_batch_is_counted_with_its_results_and_tokens(
    stack: Stack, queue: BatchQueue, scrape: Scrape
) -> None:
    done, ok = (
        scrape("lowtide_batches", state="completed") or 0,
        scrape("lowtide_results_total", status="succeeded", reason="") or 0,
    )
    tokens = scrape("lowtide_tokens_total", type="total", provider="gemini", model=MODEL) or 0
    dollars = scrape("lowtide_cost_dollars_total", provider="gemini", model=MODEL) or 0

    status = queue.submit(blurbs(12), model=MODEL).wait(timeout=180)

    assert scrape("lowtide_batches", state="completed") == done + 1
    assert scrape("lowtide_results_total", status="succeeded", reason="") == ok + 12
    assert (
        scrape("lowtide_tokens_total", type="total", provider="gemini", model=MODEL)
        == tokens + status.usage.total_token_count
    )
    paid = (scrape("lowtide_cost_dollars_total", provider="gemini", model=MODEL) or 0) - dollars
    assert round(paid * 10**9) == status.paid_cost
    assert scrape("lowtide_jobs", state="succeeded", provider="gemini", model=MODEL)
    assert scrape("lowtide_live_jobs_limit", provider="gemini") == 100
    assert_right(stack.redis)


def test_small_batches_that_share_jobs_are_counted_with_their_bundle(stack: Stack, scrape: Scrape) -> None:
    done = scrape("lowtide_bundles", state="completed") or 0
    queue = stack.queue(share_jobs=True, linger_seconds=3600, linger_requests=4)
    batches = [queue.submit(blurbs(2), model=MODEL)]

    assert scrape("lowtide_bundles", state="pending") == 1
    assert_right(stack.redis)
    batches.append(queue.submit(blurbs(2), model=MODEL))
    for batch in batches:
        batch.wait(timeout=180)
    wait_until(lambda: scrape("lowtide_bundles", state="completed") == done + 1)
    assert scrape("lowtide_bundles", state="pending") == 0
    assert_right(stack.redis)
    for batch in batches:
        batch.delete()
    wait_until(lambda: scrape("lowtide_bundles", state="completed") == done)
    assert_right(stack.redis)


def test_failures_retries_and_provider_errors_are_counted_by_reason(
    queue: BatchQueue, stack: Stack, scrape: Scrape
) -> None:
    before = [scrape("lowtide_retries_total", reason=reason) or 0 for reason in ("INTERNAL", "MISSING")]
    for kind, params in (("row_error_details", {"code": 13, "count": 2}), ("missing_rows", {"count": 1})):
        stack.emulator.set_faults(
            [
                {"on": "batches.create", "kind": "status", "times": 1, "params": {"code": 429}},
                {"on": "job", "kind": kind, "times": 1, "params": params},
            ]
        )
        assert queue.submit(blurbs(4), model=MODEL).wait(timeout=180).succeeded == 4

    assert scrape("lowtide_retries_total", reason="INTERNAL") == before[0] + 2
    assert scrape("lowtide_retries_total", reason="MISSING") == before[1] + 1
    throttled = {"provider": "gemini", "call": "create", "error": "Throttled"}
    assert wait_until(lambda: scrape("lowtide_provider_errors_total", **throttled))


def test_parked_and_redelivered_segments_are_counted(stack: Stack, queue: BatchQueue, scrape: Scrape) -> None:
    batch = queue.submit(blurbs(11), model=MODEL, on_result="http://127.0.0.1:9/hook")
    batch.wait(timeout=180)

    wait_until(lambda: scrape("lowtide_segments", state="parked") == 3)

    assert not scrape("lowtide_segments", state="undelivered")
    assert_right(stack.redis)
    batch.delete()
    wait_until(lambda: not stack.redis.exists(keys.batch(batch.id)))
    assert scrape("lowtide_segments", state="parked") == 0
    assert_right(stack.redis)


def test_the_time_until_a_handler_has_taken_results_is_measured(
    stack: Stack, queue: BatchQueue, scrape: Scrape
) -> None:
    before = scrape("lowtide_delivery_delay_seconds_count") or 0

    queue.submit(blurbs(11), model=MODEL, on_result="stream://metrics").wait(timeout=180)

    wait_until(lambda: scrape("lowtide_delivery_delay_seconds_count") == before + 3)
    assert scrape("lowtide_delivery_delay_seconds_bucket", le="86400") == before + 3


def test_a_celery_handlers_answer_ends_the_time_of_its_delivery(
    stack: Stack, queue: BatchQueue, scrape: Scrape
) -> None:
    before = scrape("lowtide_delivery_delay_seconds_count") or 0
    batch = queue.submit(blurbs(3), model=MODEL, on_result="shop.save@nowhere")
    wait_until(lambda: stack.redis.llen("nowhere"))
    assert scrape("lowtide_segments", state="undelivered") == 1
    assert scrape("lowtide_oldest_undelivered_segment_seconds")
    client = Runtime(stack.worker_settings()).delivery_client

    for _ in range(2):
        client.taken(f"{batch.id}-1:0")

    assert scrape("lowtide_delivery_delay_seconds_count") == before + 1
    assert scrape("lowtide_segments", state="undelivered") == 0
    assert scrape("lowtide_oldest_undelivered_segment_seconds") == 0
    assert_right(stack.redis)


def test_oddities_and_repairs_are_counted_by_kind(stack: Stack, scrape: Scrape) -> None:
    oddities = Runtime(stack.worker_settings()).oddities
    oddities.count("odd_metrics", 3)
    oddities.count("swept_gemini_jobs", 2)

    assert scrape("lowtide_oddities_total", kind="metrics") == 3
    assert scrape("lowtide_sweep_repairs_total", kind="gemini_jobs") == 2


def test_the_time_of_stages_and_calls_is_measured(queue: BatchQueue, scrape: Scrape) -> None:
    queue.submit(blurbs(1), model=MODEL).wait(timeout=180)

    wait_until(lambda: scrape("lowtide_stage_duration_seconds_count", stage="lowtide.deliver"))
    wait_until(lambda: scrape("lowtide_provider_call_duration_seconds_count", provider="gemini", call="create"))


def test_a_scrape_costs_a_bounded_number_of_commands(stack: Stack, scrape: Scrape) -> None:
    client = stack.redis
    scrape("lowtide_store_up")

    def commands() -> int:
        return sum(int(each["calls"]) for name, each in client.info("commandstats").items() if name not in EXTRA)

    # Its ticker has a hundred commands a second, and a scrape may take as long on a busy machine.
    [worker] = stack.workers
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: worker.stands_still, what="the worker is frozen")
        before = commands()
        scrape("lowtide_store_up")
        cost = commands() - before
    finally:
        os.kill(worker.pid, signal.SIGCONT)

    assert cost < 100


EXTRA = {"cmdstat_evalsha", "cmdstat_brpop", "cmdstat_publish"}


def test_a_hundred_models_cost_no_further_calls_and_one_damaged_line_hides_no_other(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        client, now = stack.redis, Runtime(stack.worker_settings()).clock.now()
        for number in range(100):
            model = f"gemini-{number}"
            client.zadd(keys.models("gemini"), {model: now})
            # Of priority 3 and young, of priority 0 and old: the old one is the last of the line.
            client.zadd(keys.waiting("gemini", model), {"young": now - 5 - 3e10, "old": now - 100 - number})
            client.hset(keys.live_tokens("gemini", model), mapping={"one": 1000, "two": number})
            client.set(keys.quota("gemini", model), '{"learned": 5000}')
        client.delete(keys.waiting("gemini", "gemini-7"))
        client.set(keys.waiting("gemini", "gemini-7"), "damaged")
        registry = CollectorRegistry()
        registry.register(StoreCollector(stack.worker_settings()))
        registry.get_sample_value("lowtide_store_up")  # connects, and loads the script

        with client.monitor() as monitor:
            value = {
                (sample.name, sample.labels.get("model", "")): sample.value
                for family in registry.collect()
                for sample in family.samples
                if sample.labels.get("provider") != "vertex"
            }
            client.echo("over")
            said = list(takewhile(lambda one: not one["command"].startswith("ECHO"), monitor.listen()))

    assert len([one for one in said if one["client_type"] != "lua"]) < 100
    assert sum(jobs for (name, _), jobs in value.items() if name == "lowtide_waiting_jobs") == 198
    assert [value["lowtide_waiting_jobs", model] for model in ("gemini-7", "gemini-9")] == [0, 2]
    assert value["lowtide_live_tokens", "gemini-9"] == 1009
    assert value["lowtide_live_tokens_limit", "gemini-99"] == 5000
    assert 109 <= value["lowtide_oldest_waiting_job_seconds", "gemini-9"] < 1e6
    assert value["lowtide_oldest_waiting_job_seconds", "gemini-7"] == 0


def test_every_metric_of_the_catalogue_has_a_family_and_lints_well(stack: Stack, scrape: Scrape) -> None:
    families = {family.name: family for family in StoreCollector(stack.worker_settings()).collect()}

    for metric in CATALOGUE:
        family = families[metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name]
        assert family.type == metric.kind
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels), metric.name
            assert sample.value >= 0


def test_ten_thousand_reasons_do_not_make_ten_thousand_series(stack: Stack) -> None:
    client = stack.redis
    totals = [part for number in range(10_000) for part in (f"results|failed|REASON{number}", 1)]
    add = scripts.add_measured.load(client)
    try:
        for first in range(0, len(totals), 2000):
            add(counters="lowtide:test", latencies=keys.LATENCIES, totals=totals[first : first + 2000], times=[])

        assert client.hlen("lowtide:test") <= 5001
        assert int(client.hget("lowtide:test", "results|failed|other") or 0) > 4900
    finally:
        client.delete("lowtide:test")


def test_a_damaged_census_stops_no_work_and_no_scrape(stack: Stack, queue: BatchQueue, scrape: Scrape) -> None:
    client = stack.redis
    damaged: dict[Any, Any] = {"batches|pending": "many", "requests|pending": "-3", "batches": "x", b"\xff|": "1"}
    try:
        client.hset(keys.CENSUS, mapping=damaged)
        client.delete(keys.LATENCIES, keys.COUNTERS)
        client.set(keys.LATENCIES, "none")
        client.rpush(keys.COUNTERS, "none")

        batch = queue.submit(blurbs(2), model=MODEL, on_result="stream://x")
        assert batch.wait(timeout=180).succeeded == 2
        wait_until(lambda: not batch.status().undelivered)
        assert scrape("lowtide_store_up") == 1
        assert scrape("lowtide_batches", state="completed")
    finally:
        client.delete(keys.CENSUS, keys.LATENCIES, keys.COUNTERS)
        right: dict[Any, Any] = {**scanned(client)}
        client.hset(keys.CENSUS, mapping=right)


def test_a_worker_killed_in_mid_work_leaves_the_census_right(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        killed = stack.worker("-P", "solo", LOWTIDE_CRASH_AT="deliver.after-record", LOWTIDE_SEGMENT_ROWS="5")
        batch = stack.queue().submit(blurbs(12), model=MODEL, on_result="stream://x")
        wait_until(lambda: not killed.alive)

        assert_right(stack.redis)
        stack.worker("-P", "threads", "-c", "2")
        batch.wait(timeout=180)
        wait_until(lambda: not batch.status().undelivered)
        assert_right(stack.redis)
        assert stack.redis.hget(keys.COUNTERS, "results|succeeded|") == b"12"


def test_due_work_without_a_worker_shows_as_lag(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.redis.zadd(keys.clock(Queue.JOBS), {"batch:b0late": Runtime(stack.worker_settings()).clock.now() - 60})
        registry = CollectorRegistry()
        registry.register(StoreCollector(stack.worker_settings()))

        assert registry.get_sample_value("lowtide_clock_due_members", {"queue": Queue.JOBS}) == 1
        assert (registry.get_sample_value("lowtide_clock_lag_seconds", {"queue": Queue.JOBS}) or 0) >= 60
        assert registry.get_sample_value("lowtide_clock_lag_seconds", {"queue": Queue.RESULTS}) == 0


def test_a_redis_that_does_not_serve_shows_as_down(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        registry = CollectorRegistry()
        registry.register(StoreCollector(stack.worker_settings()))
    assert registry.get_sample_value("lowtide_store_up") == 0


@pytest.mark.parametrize("server", ["lowtide", "flower"])
def test_the_metrics_are_served(stack: Stack, server: str, tmp_path: Path) -> None:
    port = quiet_port()
    command = {
        "lowtide": ["lowtide_cli", "metrics", f"--port={port}"],
        "flower": ["celery", "-A", "lowtide_worker", "flower", "--address=127.0.0.1", f"--port={port}"],
    }[server]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=stack.env, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
    try:

        def read() -> str | None:
            try:
                with _open(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                    return str(reply.read(), "utf-8")
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                return None

        text = wait_until(read)
    finally:
        process.terminate()
        process.wait(60)

    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert samples["lowtide_store_up"] == 1
    assert "lowtide_clock_lag_seconds" in samples


def test_a_port_that_is_taken_is_a_clear_error(stack: Stack) -> None:
    command = [sys.executable, "-m", "lowtide_cli", "metrics", f"--port={stack.redis_server.port}"]

    done = subprocess.run(command, env=stack.env, cwd=stack.directory, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("received", "missed", "silent"),
    [
        pytest.param(None, None, 0, id="no-webhooks"),
        pytest.param(50, None, 0, id="all-come"),
        pytest.param(50, 10, 1, id="missed"),
        pytest.param(None, 10, 1, id="none-has-come"),
        pytest.param(10, 50, 0, id="they-come-again"),
        pytest.param(None, 90_000, 0, id="turned-off-since-then"),
    ],
)
def test_events_are_missed_only_while_jobs_expect_them(
    stack: Stack, scrape: Scrape, received: float | None, missed: float | None, silent: int
) -> None:
    now = float(stack.redis.time()[0])
    ages = {"received": received, "missed": missed}
    if times := {name: now - age for name, age in ages.items() if age is not None}:
        stack.redis.zadd(keys.HOOKS, times)

    found = scrape("lowtide_hooks_silent")

    stack.redis.delete(keys.HOOKS)
    assert found == silent
