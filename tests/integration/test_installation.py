"""Redis and spool belong together: whoever has another one of either is told at once, and nothing is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.records import a_job, hash_of
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import InstallationMismatch
from lowtide.protocol import BatchFiles, Stage, keys
from lowtide.spool import MARKER, Spool
from lowtide.states import JobState
from lowtide.store import DeliveryClient, Installation
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers import Missing, NewJob
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.sweep import sweep
from lowtide_worker.state import HeldSweep


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers without a worker; each test empties them."""
    with Stack(tmp_path_factory.mktemp("identity")) as stack:
        yield stack


@pytest.fixture
def empty(stack: Stack) -> Stack:
    stack.redis.flushall()
    shutil.rmtree(stack.directory / "spool", ignore_errors=True)
    return stack


def installation(stack: Stack, **changes: Any) -> Installation:
    settings = stack.settings(**changes)
    return Runtime(stack.worker_settings(**changes)).installation if changes else _installation(stack, settings)


def _installation(stack: Stack, settings: Any) -> Installation:
    return Installation(settings, stack.redis, Spool(settings.spool_url))


def refused_worker(stack: Stack, **env: str) -> str:
    """The words of a worker that ends by itself, with an error."""
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-l", "info", "-P", "solo"]
    ended = subprocess.run(
        command, env=stack.env | env, cwd=stack.directory, capture_output=True, text=True, timeout=180, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    return ended.stderr


def swept(stack: Stack, **changes: Any) -> None:
    """One round of the sweep, in this process."""
    runtime = Runtime(stack.worker_settings(**changes))
    runtime.clock.start_sweep()
    held = runtime.clock.begin(Stage.SWEEP, keys.SWEEP_MEMBER, int(runtime.redis.hget("lowtide:sweep", "token") or 0))
    assert isinstance(held, HeldSweep), held
    runtime.clock.advance(held, sweep(runtime, held))


def age(folder: Path, seconds: float) -> None:
    """Makes all that lies in a folder look older."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_whoever_comes_first_makes_the_identity_and_all_others_have_the_same(empty: Stack) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: installation(empty).check(), range(32)))

    assert found == {empty.installation}
    assert empty.redis.get(keys.INSTALLATION) == found.pop().encode()


def test_of_two_redises_that_begin_on_one_spool_at_once_only_one_has_it(empty: Stack) -> None:
    urls = [f"{empty.redis_server.url[:-2]}/{database}" for database in range(6)]

    def begin(url: str) -> str | None:
        try:
            return installation(empty, redis_url=url).check()
        except InstallationMismatch:
            return None

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(begin, urls * 2))

    assert len({known for known in found if known}) == 1
    assert sum(known is not None for known in found[:6]) == 1


@pytest.mark.parametrize("steps", [1, 2])
def test_a_first_start_that_died_in_the_middle_is_ended_by_the_next(empty: Stack, steps: int) -> None:
    first = installation(empty)
    empty.redis.set(keys.INSTALLATION, f"0123abcd {first._place}")
    if steps == 2:
        Spool(empty.settings().spool_url).create(MARKER, b'{"installation":"0123abcd"}')

    assert installation(empty).check() == "0123abcd"
    assert empty.redis.get(keys.INSTALLATION) == b"0123abcd"


def test_a_producer_with_another_spool_is_told_so_and_writes_nothing(empty: Stack, tmp_path: Path) -> None:
    empty.queue().submit(blurbs(1), model=MODEL)
    strayed = empty.queue(spool_url=str(tmp_path / "elsewhere"))

    with pytest.raises(InstallationMismatch, match=r"elsewhere has no installation\.json"):
        strayed.submit(blurbs(1), model=MODEL)

    assert not (tmp_path / "elsewhere").exists()
    assert empty.redis.zcard(keys.BATCHES) == 1


@pytest.mark.parametrize("loss", ["emptied", "another database"])
def test_a_producer_whose_redis_is_not_the_spools_is_told_so(empty: Stack, loss: str) -> None:
    queue = empty.queue()
    batch = queue.submit(blurbs(1), model=MODEL)
    if loss == "emptied":
        empty.redis.flushall()
    else:
        queue = empty.queue(redis_url=f"{empty.redis_server.url[:-2]}/7")

    for share in (False, True):
        with pytest.raises(InstallationMismatch, match="knows none"):
            queue.submit(blurbs(1), model=MODEL, share=share)
    assert loss != "emptied" or not empty.redis.keys()
    with pytest.raises(InstallationMismatch, match="knows none"):
        queue.list()
    with pytest.raises(InstallationMismatch, match="knows none"):
        queue.get(batch.id)


def test_a_handler_in_another_spool_is_told_so(empty: Stack, tmp_path: Path) -> None:
    batch = empty.queue().submit(blurbs(1), model=MODEL)
    delivery = DeliveryClient(empty.settings(spool_url=str(tmp_path)))

    with pytest.raises(InstallationMismatch, match="not the workers' spool"):
        delivery.lines(batch.id, BatchFiles(batch.id).result(1, 0))


def test_no_message_holds_a_password(empty: Stack, tmp_path: Path) -> None:
    installation(empty).check()
    settings = empty.settings(redis_url=f"redis://:hunter2@{empty.redis_server.url[8:]}", spool_url=str(tmp_path))

    with pytest.raises(InstallationMismatch) as caught:
        Installation(settings, empty.redis, Spool(settings.spool_url)).check()

    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_worker_with_another_spool_refuses_to_start(empty: Stack, tmp_path: Path) -> None:
    batch = empty.queue().submit(blurbs(1), model=MODEL)

    said = refused_worker(empty, LOWTIDE_SPOOL_URL=str(tmp_path))

    assert "this worker ends" in said
    assert str(tmp_path) in said
    assert batch.status().state == "pending"
    assert list(tmp_path.iterdir()) == []


def test_a_worker_ends_when_its_broker_comes_back_empty(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        worker = stack.worker("-P", "solo")
        stack.redis_server.kill()
        shutil.rmtree(stack.directory / "redis" / "appendonlydir")
        stack.redis_server.start()

        wait_until(lambda: not worker.alive, what="the worker ends")

        assert worker.process.returncode == 1
        assert "knows none: it was emptied" in worker.text


def test_adopting_makes_redis_the_spools_again(empty: Stack) -> None:
    known = installation(empty).check()
    empty.redis.flushall()

    assert installation(empty).adopt() == known
    assert empty.queue().submit(blurbs(1), model=MODEL).status().total == 1

    (empty.directory / "spool" / MARKER).unlink()
    assert installation(empty).adopt() == known

    empty.redis.set(keys.INSTALLATION, "zzzzzzzz")
    with pytest.raises(InstallationMismatch, match="zzzzzzzz"):
        installation(empty).adopt()
    assert installation(empty).adopt(over=True) == known


def test_jobs_keep_the_display_name_that_they_were_given(empty: Stack) -> None:
    runtime = Runtime(empty.worker_settings())
    known = runtime.installation.check()

    assert runtime.display_name(a_job("b00-1")) == f"lowtide-{known}-b00-1"
    assert runtime.display_name(a_job("b00-1", display_name="lowtide-zzzzzzzz-b00-1")) == "lowtide-zzzzzzzz-b00-1"


def test_batches_of_a_version_without_identity_go_on(empty: Stack) -> None:
    batch = empty.queue().submit(blurbs(1), model=MODEL)
    empty.redis.delete(keys.INSTALLATION)
    (empty.directory / "spool" / MARKER).unlink()

    assert empty.queue().get(batch.id).status().total == 1
    assert len(installation(empty).check()) == 8


@pytest.mark.parametrize("store", ["empty", "another database", "adopted"])
def test_results_and_paid_output_outlive_the_redis_that_knew_them(empty: Stack, store: str) -> None:
    batch = empty.queue().submit(blurbs(1), model=MODEL)
    files = BatchFiles(batch.id)
    spool = Spool(empty.settings().spool_url)
    for name in (files.result(1, 0), files.output(2, "3-0")):
        with spool.write(name) as file:
            file.write(b"{}\n")
    before = spool.names(files.folder)
    age(empty.directory / "spool" / files.folder, 90_000)
    changes = {"redis_url": f"{empty.redis_server.url[:-2]}/5"} if store == "another database" else {}
    if not changes:
        empty.redis.flushall()
    if store == "adopted":
        installation(empty).adopt()

    swept(empty, orphan_seconds=1, **changes)

    assert spool.names(files.folder) == before


def test_requests_of_a_second_installation_on_the_spool_are_not_swept(empty: Stack, tmp_path: Path) -> None:
    batch = empty.queue().submit(blurbs(3), model=MODEL)
    folder = empty.directory / "spool" / "batches" / batch.id
    age(folder, 90_000)
    other = f"{empty.redis_server.url[:-2]}/6"

    swept(empty, orphan_seconds=1, redis_url=other)

    assert (folder / "index.bin").exists()


def test_drafts_of_a_dead_producer_go_by_the_times_of_files_and_redis(
    empty: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation(empty).check()
    spool = Spool(empty.settings().spool_url)
    for name in ("bold", "bnew"):
        with spool.write(f"batches/{name}/requests.jsonl.3") as file:
            file.write(b"draft")
    age(empty.directory / "spool" / "batches" / "bold", 90_000)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 1e9)

    swept(empty)

    assert spool.folders("batches") == ["bnew"]


def test_a_late_file_of_a_deleted_batch_goes_and_a_new_batch_of_its_id_stays(empty: Stack) -> None:
    runtime = Runtime(empty.worker_settings())
    runtime.installation.check()
    for batch_id, names in {"late": ["results/00001-0000000.jsonl"], "anew": ["index.bin", "results/x.jsonl"]}.items():
        runtime.deleted.note(batch_id)
        for name in names:
            with runtime.spool.write(f"batches/{batch_id}/{name}") as file:
                file.write(b"{}\n")
        age(empty.directory / "spool" / "batches" / batch_id, 90_000)

    swept(empty)

    assert runtime.spool.folders("batches") == ["anew"]


def test_a_job_that_was_taken_for_lost_and_has_output_stays_until_its_batch_has_its_results(empty: Stack) -> None:
    runtime = Runtime(empty.worker_settings())
    runtime.installation.check()
    provider = runtime.provider("gemini")
    line = b'{"key": "r0.0", "request": {"contents": [{"parts": [{"text": "Hi"}]}]}}'
    name = runtime.display_name(a_job("bfound-1"))
    made = provider.create(NewJob(model=MODEL, display_name=name, lines=[line]), Deadline(30)).name
    wait_until(lambda: provider.get(made).output, what="the job has output")
    empty.redis.hset(keys.job("bfound-1"), mapping=hash_of(a_job("bfound-1", state=JobState.LOST, name=made)))
    empty.redis.hset(keys.batch("bfound"), mapping={"id": "bfound", "state": "running", "stage": ""})

    swept(empty)
    assert provider.get(made).output

    empty.redis.hset(keys.batch("bfound"), "state", "completed")
    swept(empty)
    with pytest.raises(Missing):
        provider.get(made)
