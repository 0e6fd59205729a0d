"""Producers without the package, and what workers do with messages that are none: see docs/protocol.md."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.stack import Stack, Worker
from tests.waiting import wait_until

from lowtide import BatchNotFound, Request
from lowtide.protocol import Queue, keys

MODEL = "gemini-3.5-flash"


def celery_message(task: str, kwargs: Any, *, body: bytes | None = None, content_type: str = "application/json") -> str:
    """Returns a message as any Celery client puts it on a Redis queue (protocol 2), made by hand."""
    task_id = str(uuid.uuid4())
    raw = json.dumps([[], kwargs, {}]).encode() if body is None else body
    return json.dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "lowtide.jobs"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def send(stack: Stack, message: str) -> None:
    stack.redis.lpush("lowtide.jobs", message)


def inbox(stack: Stack, batch_id: str, options: dict[str, Any], lines: list[str]) -> Path:
    folder = stack.directory / "spool" / "inbox" / batch_id
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text("\n".join(lines))
    (folder / "batch.json").write_text(json.dumps(options))
    return folder


def test_a_batch_can_be_submitted_with_two_files_and_one_message(stack: Stack) -> None:
    lines = [json.dumps({"key": f"k{n}", "contents": f"Number {n}", "metadata": {"n": str(n)}}) for n in range(4)]
    folder = inbox(stack, "from-elsewhere-1", {"v": 1, "model": MODEL, "labels": {"team": "other"}}, lines)

    send(stack, celery_message("lowtide.submit", {"v": 1, "batch_id": "from-elsewhere-1", "token": 0}))

    queue = stack.queue()

    def known() -> bool:
        try:
            return bool(queue.get("from-elsewhere-1"))
        except BatchNotFound:
            return False

    wait_until(known, what="the batch is taken in")
    batch = queue.get("from-elsewhere-1")
    assert batch.wait(timeout=180).succeeded == 4
    assert {r.key: r.metadata for r in batch.results()} == {f"k{n}": {"n": str(n)} for n in range(4)}
    wait_until(lambda: not folder.exists(), what="the inbox is empty")


def test_a_batch_that_cannot_be_taken_in_says_why_beside_its_files(stack: Stack) -> None:
    folder = inbox(stack, "from-elsewhere-2", {"v": 1, "model": MODEL}, ['{"key": "a", "contents": ""}'])

    send(stack, celery_message("lowtide.submit", {"v": 1, "batch_id": "from-elsewhere-2", "token": 0}))

    wait_until(lambda: (folder / "error.json").exists(), what="the refusal")
    error = json.loads((folder / "error.json").read_text())
    assert error["error"] == "InvalidRequest"
    assert "contents" in error["message"]


BAD_MESSAGES = {
    "not JSON": "\x00 this is no message {",
    "not an envelope": '["a", "list"]',
    "no properties": '{"body": "x"}',
    "no task": json.dumps(json.loads(celery_message("x", {})) | {"headers": {}}),
    "unknown task": celery_message("lowtide.explode", {"v": 1, "batch_id": "b000", "token": 0}),
    "body is not JSON": celery_message("lowtide.poll", {}, body=b"\xff{{"),
    "pickled": celery_message("lowtide.poll", {}, body=b"\x80\x04N.", content_type="application/x-python-serialize"),
    "positional arguments": celery_message("lowtide.poll", {}, body=b'[["b000"], {}, {}]'),
    "no ids": celery_message("lowtide.poll", {"v": 1}),
    "a path for an id": celery_message("lowtide.poll", {"v": 1, "batch_id": "../../etc/passwd", "token": 0}),
    "a job of another batch": celery_message("lowtide.poll", {"v": 1, "batch_id": "b000", "job_id": "b111-1"}),
    "a batch that does not exist": celery_message("lowtide.submit", {"v": 1, "batch_id": "b00000000", "token": 0}),
    "a job that does not exist": celery_message("lowtide.poll", {"v": 1, "batch_id": "b000", "job_id": "b000-1"}),
    "a newer version": celery_message("lowtide.submit", {"v": 99, "batch_id": "b000", "token": 0}),
    "a token that is none": celery_message("lowtide.submit", {"v": 1, "batch_id": "b000", "token": "x"}),
}


@pytest.mark.parametrize("kind", BAD_MESSAGES)
def test_a_message_that_cannot_be_handled_is_kept_and_the_worker_lives_on(stack: Stack, kind: str) -> None:
    [worker] = stack.workers
    before = stack.redis.llen("lowtide:dead-letters")

    send(stack, BAD_MESSAGES[kind])

    wait_until(lambda: stack.redis.llen("lowtide:dead-letters") > before, what="a dead letter")
    letter = json.loads(stack.redis.lindex("lowtide:dead-letters", 0) or b"{}")
    assert letter["reason"]
    assert_serves(stack, worker)


def assert_serves(stack: Stack, worker: Worker) -> None:
    assert worker.alive, worker.text
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    assert batch.wait(timeout=180).succeeded == 1


def test_a_second_copy_of_a_message_finds_nothing_to_do(stack: Stack) -> None:
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    for _ in range(20):
        send(stack, celery_message("lowtide.submit", {"v": 1, "batch_id": batch.id, "token": 0}))

    status = batch.wait(timeout=180)

    assert len(status.jobs) == 1
    assert (
        len([job for job in stack.emulator.jobs() if job.display_name == f"lowtide-{stack.installation}-{batch.id}-1"])
        == 1
    )


def test_a_second_copy_of_a_delete_comes_to_a_batch_that_is_gone_and_is_no_dead_letter(stack: Stack) -> None:
    [worker] = stack.workers
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)
    batch.wait(timeout=180)
    batch.delete()
    wait_until(lambda: not stack.redis.exists(f"lowtide:batch:{batch.id}"), what="the batch is gone")
    before = stack.redis.llen("lowtide:dead-letters")

    send(stack, celery_message("lowtide.delete", {"v": 1, "batch_id": batch.id, "token": 1}))

    assert_serves(stack, worker)
    wait_until(lambda: not stack.redis.exists(keys.UNACKED, Queue.JOBS), what="its end")
    assert stack.redis.llen("lowtide:dead-letters") == before
