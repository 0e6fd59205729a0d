"""The inbox when something goes wrong: only what the producer must mend is refused, and a late worker does nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.proxy import Loss, RedisProxy
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchNotFound
from lowtide.limits import MAX_INBOX_OPTIONS_BYTES
from lowtide.protocol import keys, sender
from lowtide_worker import inbox as take_in_module
from lowtide_worker.inbox import Outcome, take_in
from lowtide_worker.runtime import Runtime

MODEL = "gemini-3.5-flash"
LINES = [json.dumps({"key": f"k{n}", "contents": f"What is {n} times two?"}) + "\n" for n in range(4)]
BROKEN = [*LINES, LINES[0]]


@pytest.fixture(autouse=True)
def no_sweep(stack: Stack) -> None:
    """A worker sweeps when it starts, and may still do so for the test before."""
    stack.put_off_sweep()


def leave(stack: Stack, batch_id: str, options: object = None, lines: list[str] | None = None) -> Path:
    folder = stack.directory / "spool" / "inbox" / batch_id
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text("".join(LINES if lines is None else lines))
    text = options if isinstance(options, str) else json.dumps(options or {"v": 1, "model": MODEL})
    (folder / "batch.json").write_text(text)
    return folder


def tell(stack: Stack, batch_id: str) -> None:
    app = sender(stack.redis_server.url)
    app.send_task("lowtide.submit", kwargs={"v": 1, "batch_id": batch_id, "token": 0}, queue="lowtide.jobs")


def sweep(stack: Stack) -> None:
    stack.redis.zadd("lowtide:clock:lowtide.jobs", {"sweep": time.time()})


def is_known(stack: Stack, batch_id: str) -> bool:
    try:
        return bool(stack.queue().get(batch_id))
    except BatchNotFound:
        return False


def assert_it_runs(stack: Stack, batch_id: str, *, told: bool = True) -> None:
    wait_until(lambda: is_known(stack, batch_id), what="the batch is taken in")
    if not told:
        # Without a message it waits for the clock: not that long.
        stack.redis.zadd("lowtide:clock:lowtide.jobs", {f"batch:{batch_id}": time.time()}, xx=True)
    assert stack.queue().get(batch_id).wait(timeout=180).succeeded == len(LINES)
    assert len([job for job in stack.emulator.jobs() if batch_id in job.display_name]) == 1


def test_a_file_as_it_is_with_keys_in_another_field_is_taken(stack: Stack) -> None:
    lines = [json.dumps({"id": n, "contents": "What is two times two?"}) + "\n" for n in range(len(LINES))]
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "not\none"}
    leave(
        stack, "inbox-ids", {"v": 1, "model": MODEL, "key_field": "id", "deadline": 3600, **trace}, ["\ufeff", *lines]
    )

    tell(stack, "inbox-ids")

    assert_it_runs(stack, "inbox-ids")
    status = stack.queue().get("inbox-ids").status()
    assert status.deadline_at == pytest.approx(status.created_at + 3600)
    assert {result.key for result in stack.queue().get("inbox-ids").results()} == {"0", "1", "2", "3"}
    kept = stack.redis.hmget(keys.batch("inbox-ids"), *trace)
    assert kept == [trace["traceparent"].encode(), None]


def test_what_fails_for_a_moment_is_no_refusal(stack: Stack) -> None:
    [worker] = stack.workers
    obstacle = stack.directory / "spool" / "batches" / "inbox-later"
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.touch()
    folder = leave(stack, "inbox-later")
    tell(stack, "inbox-later")
    wait_until(lambda: "inbox inbox-later: the next sweep tries again" in worker.text, what="a first try")
    assert not (folder / "error.json").exists()

    obstacle.unlink()
    sweep(stack)

    assert_it_runs(stack, "inbox-later", told=False)
    wait_until(lambda: not folder.exists(), what="the inbox is empty")


@pytest.mark.parametrize("loss", list(Loss), ids=lambda loss: loss.name)
def test_a_reply_that_is_lost_at_the_record_is_no_refusal(stack: Stack, proxy: RedisProxy, loss: Loss) -> None:
    batch_id = f"inbox-{loss.name.lower()}"
    # So that Redis knows the script, and what is lost is the reply to the record itself.
    stack.queue().submit([json.loads(line) for line in LINES], model=MODEL)
    folder = leave(stack, batch_id)
    runtime = Runtime(stack.worker_settings(redis_url=proxy.url, redis_timeout_seconds="0.5"))
    proxy.lose(b"lowtide:batches\r\n", loss, 5)
    try:
        assert take_in(runtime, batch_id) is Outcome.LATER
        assert proxy.hits == 3
    finally:
        proxy.lose(b"", loss, 0)
    assert not (folder / "error.json").exists()

    sweep(stack)

    assert_it_runs(stack, batch_id, told=False)
    wait_until(lambda: not folder.exists(), what="the inbox is empty")


REFUSED: dict[str, object] = {
    "model": {"model": "gemini-3.5-flash\n"},
    "attempts": {"model": MODEL, "max_attempts": 1.5},
    "attempts-true": {"model": MODEL, "max_attempts": True},
    "attempts-many": {"model": MODEL, "max_attempts": 101},
    "priority": {"model": MODEL, "priority": 101},
    "deadline": {"model": MODEL, "deadline": "tomorrow"},
    "labels": {"model": MODEL, "labels": {"a": 5}},
    "label": {"model": MODEL, "labels": {"a": "v" * 2000}},
    "unknown": {"model": MODEL, "colour": "blue"},
    "no-json": "{",
    "deep": "[" * 100_000,
    "large": json.dumps({"model": MODEL, "labels": {"a": "v" * MAX_INBOX_OPTIONS_BYTES}}),
}


def test_what_only_the_producer_can_mend_is_refused(stack: Stack) -> None:
    folders = {name: leave(stack, f"refused-{name}", options) for name, options in REFUSED.items()}
    folders["no-requests"] = leave(stack, "refused-no-requests")
    (folders["no-requests"] / "requests.jsonl").unlink()
    folders["key"] = leave(stack, "refused-key", lines=BROKEN)

    for name in folders:
        tell(stack, f"refused-{name}")

    for name, folder in folders.items():
        wait_until((folder / "error.json").exists, what=f"the refusal of {name}")
        assert json.loads((folder / "error.json").read_text())["message"]
        assert not is_known(stack, f"refused-{name}")
        shutil.rmtree(folder)


def test_an_inbox_whose_batch_is_recorded_is_emptied_and_does_not_run_again(stack: Stack) -> None:
    folder = leave(stack, "inbox-left")
    copy = stack.directory / "copy"
    shutil.copytree(folder, copy)
    tell(stack, "inbox-left")
    assert_it_runs(stack, "inbox-left")
    wait_until(lambda: not folder.exists(), what="the inbox is empty")

    # As a worker leaves it that dies between the record and the end of the take-in.
    copy.rename(folder)
    sweep(stack)

    wait_until(lambda: not folder.exists(), what="the inbox is empty again")
    assert_it_runs(stack, "inbox-left")


@contextmanager
def frozen_at(point: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Has the first that comes to a place stand still: events that say when it does, and let it go."""
    arrived, go_on = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == point and not arrived.is_set():
            arrived.set()
            assert go_on.wait(60)

    monkeypatch.setattr(take_in_module, "reach", reach)
    try:
        yield arrived, go_on
    finally:
        go_on.set()


@pytest.mark.parametrize(
    "point", ["inbox.before-files", "inbox.before-record", "inbox.after-record", "inbox.before-refusal"]
)
def test_a_worker_that_wakes_when_another_has_taken_the_batch_in_changes_nothing(
    stack: Stack, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = point.replace(".", "-")
    mended = point == "inbox.before-refusal"
    folder = leave(stack, batch_id, lines=BROKEN if mended else LINES)
    runtime = Runtime(stack.worker_settings(lease_seconds="1"))
    outcomes: list[Outcome] = []
    late = threading.Thread(target=lambda: outcomes.append(take_in(runtime, batch_id)))
    with frozen_at(point, monkeypatch) as (arrived, go_on):
        late.start()
        assert arrived.wait(60)
        if mended:
            (folder / "requests.jsonl").write_text("".join(LINES))
        wait_until(lambda: not stack.redis.exists(f"lowtide:inbox:{batch_id}"), what="its lock has lapsed")
        tell(stack, batch_id)
        assert_it_runs(stack, batch_id)
        wait_until(lambda: not folder.exists() or point == "inbox.after-record", what="the inbox is empty")
        stored = {path: path.read_bytes() for path in _files(stack, batch_id)}
        record = stack.redis.hgetall(f"lowtide:batch:{batch_id}")
        go_on.set()
        late.join(20)

    assert len(outcomes) == 1
    assert {path: path.read_bytes() for path in _files(stack, batch_id)} == stored
    assert stack.redis.hgetall(f"lowtide:batch:{batch_id}") == record
    assert not (folder / "error.json").exists()
    assert_it_runs(stack, batch_id)


def _files(stack: Stack, batch_id: str) -> list[Path]:
    """But for the drafts of whoever stands still, which are its own, and what is cleaned up behind a job."""
    found = (stack.directory / "spool" / "batches" / batch_id).rglob("*")
    return sorted(path for path in found if path.is_file() and path.suffix != ".part" and "jobs" not in path.parts)


def test_a_take_in_that_is_slow_keeps_its_lock(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(stack, "inbox-slow")
    runtime = Runtime(stack.worker_settings(lease_seconds="2"))
    real, seen = take_in_module.json_lines, []

    def slowly(lines: Iterator[bytes]) -> Iterator[tuple[int, object]]:
        for number, item in real(lines):
            # Each of the four takes longer than a third of the lease, all of them longer than the lease.
            threading.Event().wait(0.8)
            yield number, item
            seen.append(take_in(Runtime(stack.worker_settings()), "inbox-slow"))

    monkeypatch.setattr(take_in_module, "json_lines", slowly)

    assert take_in(runtime, "inbox-slow") is Outcome.ACCEPTED

    assert seen == [Outcome.LATER] * 4
    assert_it_runs(stack, "inbox-slow", told=False)
