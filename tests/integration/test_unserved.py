"""Providers that no worker can serve: workers say so at their start, `submit` warns, batches name the reason."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack, Worker
from tests.waiting import wait_until

from lowtide.budgets import budgets_digest, parse_budgets
from lowtide.extras import install
from lowtide.protocol import Queue, keys
from lowtide.store import Announcement, announce, announcements, unserved
from lowtide_worker.runtime import Runtime
from lowtide_worker.settings import WorkerSettings

WITHOUT_EXTRA = "import sys\nsys.modules['google.api_core'] = sys.modules['google.cloud.storage'] = None\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("unserved")) as stack:
        yield stack


def test_a_worker_without_the_extra_says_so_and_its_batch_waits_with_the_reason(
    stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRA)
    vertex = {"GOOGLE_CLOUD_PROJECT": "p", "LOWTIDE_VERTEX_STORAGE": "gs://bucket/folder", "LOWTIDE_PROVIDER": "vertex"}
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-l", "info", "-P", "solo"]
    log = tmp_path / "worker.log"
    # A process of its own: one that is forked has the packages already.
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command, env=stack.env | vertex | {"PYTHONPATH": str(tmp_path)}, stdout=output, stderr=output, cwd=tmp_path
        )
    wait_until(lambda: " ready." in log.read_text() or worker.poll() is not None, what="the worker is ready")
    advice = install("worker", "vertex")
    assert (
        f"this worker cannot serve provider vertex: Vertex AI needs extras on the workers' hosts: {advice}"
        in log.read_text()
    )

    with caplog.at_level(logging.WARNING, logger="lowtide"):
        batch, _ = (stack.queue().submit(blurbs(1), model=MODEL, provider="vertex") for _ in range(2))

    assert caplog.text.count("no worker serves this batch") == 1, "it is said once in a process"
    assert f"no worker serves this batch (provider vertex): worker celery@{gethostname()} cannot: " in caplog.text
    assert advice in caplog.text
    waiting, tried = wait_until(lambda: two(batch.status().problems), what="the status names the reason")
    assert waiting in caplog.text
    assert advice in tried
    assert "Traceback" not in log.read_text()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="lowtide"):
        stack.queue().submit(blurbs(1), model=MODEL)
    assert "no worker" not in caplog.text
    worker.terminate()
    assert worker.wait(60) == 0
    left = [heard.announcement.worker for heard in announcements(stack.redis)]
    assert f"celery@{gethostname()}" not in left, "a worker that ends is seen to be gone at once"


def two(problems: list[str]) -> list[str]:
    return problems if len(problems) == 2 else []


def test_a_batch_that_no_worker_serves_says_so_until_one_does(
    bare_stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    batch = bare_stack.queue().submit(blurbs(1), model=MODEL)
    assert not caplog.records, "workers may start after their producers"
    [problem] = batch.status().problems
    assert problem.startswith("no worker serves this batch (provider gemini): start one: celery -A lowtide_worker")
    assert [listed.problems for listed in bare_stack.queue().list().batches] == [[problem]]

    jobs = bare_stack.worker("-P", "threads", "-c", "2", "-Q", Queue.JOBS)
    wait_until(lambda: announcements(bare_stack.redis))
    [problem] = batch.status().problems
    assert problem.startswith("no worker serves queue lowtide.results, which this batch needs: start one: celery -A")
    results = bare_stack.worker("-P", "threads", "-c", "2", "-Q", Queue.RESULTS)
    batch.wait(timeout=180)
    assert batch.status().problems == []

    for worker in (jobs, results):
        worker.kill()
    waiting = bare_stack.queue().submit(blurbs(1), model=MODEL)
    assert waiting.status().problems == [], "a killed worker counts for two minutes"
    for heard in announcements(bare_stack.redis):
        bare_stack.redis.zadd(keys.SERVING, {msgspec.json.encode(heard.announcement): 1.0})
    [problem] = waiting.status().problems
    assert "was last heard" in problem
    assert batch.status().problems == [], "there is nothing left to do"


def test_a_worker_that_cannot_start_says_so_to_those_who_look_at_their_batches(
    bare_stack: Stack, tmp_path: Path
) -> None:
    batch = bare_stack.queue().submit(blurbs(1), model=MODEL)
    spool = f"file://{tmp_path}"
    (tmp_path / "installation.json").write_text('{"id": "i00000000000000000000000"}')
    for wrong, reason in (
        ({"LOWTIDE_POLL_FIRST_SECONDS": "soon"}, "LOWTIDE_POLL_FIRST_SECONDS: "),
        ({"LOWTIDE_SPOOL_URL": spool}, str(tmp_path)),
    ):
        bare_stack.redis.delete(keys.SERVING)
        worker = Worker(["-A", "lowtide_worker", "worker", "-P", "solo"], bare_stack.env | wrong, tmp_path / "log")
        assert not worker.alive, worker.text
        [problem] = batch.status().problems
        assert problem.startswith("no worker serves this batch (provider gemini): worker ")
        assert " takes no work: " in problem
        assert reason in problem


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.floats(0, 2e9))
def test_what_is_no_announcement_is_passed_over(stack: Stack, member: bytes, moment: float) -> None:
    stack.redis.delete(keys.SERVING)
    stack.redis.zadd(keys.SERVING, {member: moment})
    announce(stack.redis, Announcement(worker="a", queues=list(Queue), providers=["gemini"]))
    heard = announcements(stack.redis)
    stack.redis.delete(keys.SERVING)
    assert [one.announcement.worker for one in heard if one.fresh] == ["a"]
    assert unserved(heard, "gemini") == ""
    assert "it does not know this provider" in unserved(heard, "vertex")


@pytest.mark.parametrize(
    ("given", "gemini", "vertex"),
    [
        ({}, "set GEMINI_API_KEY", "set GOOGLE_CLOUD_PROJECT and LOWTIDE_VERTEX_STORAGE"),
        ({"GOOGLE_API_KEY": "x", "GOOGLE_CLOUD_PROJECT": "p"}, "", "set LOWTIDE_VERTEX_STORAGE"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "vertex_storage": "gs://bucket/folder"}, "set GEMINI_API_KEY", ""),
    ],
)
def test_what_a_worker_lacks_for_a_provider_is_what_must_be_set(
    given: dict[str, str], gemini: str, vertex: str
) -> None:
    runtime = Runtime(WorkerSettings.model_validate(given))
    assert [runtime.missing(name) for name in ("gemini", "vertex")] == [gemini, vertex]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "warns"), [(None, False), (["shop"], False), ([], True)], ids=["no worker yet", "known", "unknown"]
)
def test_a_broker_that_no_worker_knows_is_warned_of_at_submit(
    stack: Stack, caplog: pytest.LogCaptureFixture, known: list[str] | None, warns: bool
) -> None:
    stack.redis.delete(keys.SERVING)
    if known is not None:
        announce(stack.redis, Announcement(worker="a", queues=list(Queue), providers=["gemini"], brokers=known))
    with caplog.at_level(logging.WARNING, logger="lowtide"):
        stack.queue().submit(blurbs(1), model=MODEL, on_result="shop:shop.save")
    stack.redis.delete(keys.SERVING)
    assert ("no worker knows broker 'shop': name it in their LOWTIDE_BROKERS" in caplog.text) is warns


@pytest.mark.parametrize(
    ("theirs", "warns"),
    [(None, 0), ({"team=a": {"day": "1"}}, 0), ({"team=a": {"day": "2"}}, 1), ({}, 1)],
    ids=["not said", "equal", "another limit", "none"],
)
def test_a_worker_with_other_budgets_is_warned_of_once(
    stack: Stack, caplog: pytest.LogCaptureFixture, theirs: dict[str, dict[str, str]] | None, warns: int
) -> None:
    stack.redis.delete(keys.SERVING)
    digest = "" if theirs is None else budgets_digest(parse_budgets(theirs))
    announce(stack.redis, Announcement(worker="a", queues=list(Queue), providers=["gemini"], budgets=digest))
    queue = stack.queue(budgets={"team=a": {"day": 1}})

    with caplog.at_level(logging.WARNING, logger="lowtide"):
        queue.submit(blurbs(1), model=MODEL)
        queue.add_many(blurbs(1), model=MODEL, priority=1)

    stack.redis.delete(keys.SERVING)
    assert caplog.text.count("LOWTIDE_BUDGETS differs from that of worker a") == warns
