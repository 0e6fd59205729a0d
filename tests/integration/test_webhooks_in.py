"""Webhooks of the provider from end to end: jobs with a webhook, their events, and the polls behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.hooks import served
from tests.integration.blurbs import MODEL, blurbs
from tests.ports import quiet_port
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, Request, hooks
from lowtide.protocol import job_id, keys
from lowtide_emulator import Settings as EmulatorSettings

RARELY = "3"
"""Seconds between polls while events come; in all other cases it is at most half a second."""


class Receiver:
    """The hooks application, which a test stops and starts."""

    def __init__(self, stack: Stack) -> None:
        self.port = quiet_port()
        self.url = f"http://127.0.0.1:{self.port}/gemini"
        key_url = f"{stack.emulator.url}/.well-known/jwks.json"
        self._settings = stack.settings(webhook_url=self.url, hooks_keys_url=key_url)
        self._running = ExitStack()

    def start(self) -> None:
        self._running.enter_context(served(hooks.app(self._settings), self.port))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = EmulatorSettings(running_seconds=1.0, webhook_retry_seconds=0.1)
    with Stack(tmp_path_factory.mktemp("webhooks"), settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def receiver(stack: Stack) -> Iterator[Receiver]:
    receiver = Receiver(stack)
    stack.worker(
        LOWTIDE_WEBHOOK_URL=receiver.url, LOWTIDE_POLL_MAX_SECONDS="0.5", LOWTIDE_POLL_WITH_WEBHOOK_SECONDS=RARELY
    )
    receiver.start()
    yield receiver
    receiver.stop()


def polls(stack: Stack, batch: Batch) -> int:
    return int(stack.redis.hget(keys.job(job_id(batch.id, 1)), "polls") or 0)


def webhook(stack: Stack, batch: Batch) -> object:
    """Whether its job was created with a webhook, as Redis has it."""
    return stack.redis.hget(keys.job(job_id(batch.id, 1)), "webhook")


def ran(stack: Stack) -> Batch:
    """A batch that has been run."""
    batch = stack.queue().submit(blurbs(1), model=MODEL)
    assert batch.wait(timeout=180).succeeded == 1
    return batch


def problem(stack: Stack, batch: Batch) -> str:
    found = stack.redis.hget(keys.job(job_id(batch.id, 1)), "problem")
    return found.decode() if isinstance(found, bytes) else ""


def await_rare_polls(stack: Stack) -> None:
    """Waits until a job is polled once only: when its event has come. Under load an event may be later than a poll."""
    wait_until(lambda: polls(stack, ran(stack)) == 1, what="a job is polled once")


def test_polls_are_rare_while_events_come_and_frequent_while_they_do_not(stack: Stack, receiver: Receiver) -> None:
    stack.emulator.reset()  # an earlier test's events that come late would show that events come
    receiver.stop()  # and it may have rotated keys, which the application fetches at most once a minute
    receiver.start()
    await_rare_polls(stack)
    before = stack.logs().count("hooks.silent")

    stack.emulator.set_faults([{"on": "webhooks.send", "kind": "lost"}])
    ran(stack)
    wait_until(lambda: stack.logs().count("hooks.silent") > before, what="the missed event is reported")
    with stack.held_jobs():
        batch = stack.queue().submit(blurbs(1), model=MODEL)
        wait_until(lambda: polls(stack, batch) > 2 and "no events" in problem(stack, batch), what="polled often")
        stack.emulator.set_faults([])
    batch.wait(timeout=180)

    await_rare_polls(stack)


def test_a_file_that_is_ready_when_its_upload_is_answered_is_not_asked_for(stack: Stack, receiver: Receiver) -> None:
    del receiver  # its worker
    stack.emulator.reset()

    ran(stack)

    calls = stack.emulator.stats().calls
    assert calls["files.upload.chunk"] == 1
    assert "files.get" not in calls


def test_no_fault_of_events_or_of_those_who_take_them_costs_a_batch_or_a_second_job(
    stack: Stack, receiver: Receiver
) -> None:
    kinds = ["lost", "doubled", "forged", "replayed", "out_of_order", "wrong_key", "rotated_key"]
    faults = [
        {"on": "webhooks.send", "kind": kind, "probability": 0.15, "seed": number} for number, kind in enumerate(kinds)
    ]
    faults.append({"on": "webhooks.send", "kind": "flood", "times": 1, "params": {"count": 50}})
    stack.emulator.set_faults(faults)
    before = stack.emulator.stats().calls.get("batches.create", 0)
    queue, batches = stack.queue(), []

    for step in range(12):
        batches.append(queue.submit(blurbs(2), model=MODEL))
        if step in (2, 8):
            receiver.stop()
        if step in (4, 10):
            receiver.start()
        if step == 6:
            wait_until(lambda: stack.emulator.stats().calls.get("batches.create", 0) >= before + 6)
            stack.redis_server.stop()
            stack.redis_server.start()

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [2] * 12
    assert stack.emulator.stats().calls["batches.create"] == before + 12


def test_a_refused_webhook_costs_no_batch_and_embeddings_have_none(stack: Stack, receiver: Receiver) -> None:
    del receiver  # its worker
    stack.emulator.reset()
    refusal = {"code": 400, "message": "Invalid webhook URI"}
    stack.emulator.set_faults([{"on": "batches.create", "kind": "status", "times": 1, "params": refusal}])
    texts = stack.queue().submit(blurbs(2), model=MODEL)
    assert texts.wait(timeout=180).succeeded == 2
    assert (webhook(stack, texts), stack.logs().count("create.without_webhook")) == (b"0", 1)

    texts_to_embed = [Request(key=f"k{n}", contents="A kettle.") for n in range(2)]
    vectors = stack.queue().submit(texts_to_embed, model="gemini-embedding-2", kind="embedding")

    assert vectors.wait(timeout=180).succeeded == 2
    assert not webhook(stack, vectors)
    assert stack.emulator.stats().calls["batches.create"] == 3
