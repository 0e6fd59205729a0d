"""A handler is told once that a batch has ended, whatever happens to workers, handlers and the batch itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.cloud_events import violations
from tests.receiver import SECRET, Answer, Hook, Receiver
from tests.records import a_batch, held_batch
from tests.shop import done
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchNotFound, DeadLetters, Request, ResultError
from lowtide.protocol import EventRecord, Stage, keys
from lowtide.store import DeliveryClient
from lowtide_worker.metrics.exposition import StoreCollector
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.notify import notify
from lowtide_worker.state import Done, HeldEvent, Move

MODEL = "gemini-3.5-flash"


def requests(count: int) -> list[Request]:
    return [Request(key=f"sku-{n}", contents=f"Article {n}") for n in range(count)]


class World(NamedTuple):
    stack: Stack
    receiver: Receiver
    answers: dict[str, Callable[[Hook], Answer]]
    """The receiver's answers by path; others are taken."""

    def submit(self, count: int = 3, **options: Any) -> Batch:
        return self.stack.queue().submit(requests(count), model=MODEL, **options)

    def hooks(self, path: str) -> list[Hook]:
        return [hook for hook in list(self.receiver.hooks) if hook.path == f"/hooks/{path}"]

    def url(self, path: str) -> str:
        return f"{self.receiver.url}{path}"

    def entries(self, name: str) -> list[dict[str, str]]:
        found: Any = self.stack.redis.xrange(keys.stream(name))
        return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in found]

    def events(self) -> list[str]:
        """All batch events in the store."""
        return [name.decode() for name in self.stack.redis.scan_iter(keys.entity("event:*"))]

    def parked(self) -> float | None:
        """The number of parked batch events in the metrics."""
        registry = CollectorRegistry()
        registry.register(StoreCollector(self.stack.worker_settings()))
        return registry.get_sample_value("lowtide_batch_events", {"state": "parked"})

    @property
    def log(self) -> Path:
        return self.stack.directory / "shop.jsonl"

    def done(self, batch: Batch) -> list[dict[str, Any]]:
        """The calls of the shop's handler for a batch."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["key"] == batch.id]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    answers: dict[str, Callable[[Hook], Answer]] = {}

    def answer(_: int) -> Answer:
        hook: Hook = receiver.hooks[-1]
        given = answers.get(hook.path.removeprefix("/hooks/"))
        return given(hook) if given else Answer()

    receiver = Receiver(answer)
    with receiver, Stack(tmp_path_factory.mktemp("events")) as stack:
        world = World(stack, receiver, answers)
        limits = {"LOWTIDE_MAX_DELIVERY_ATTEMPTS": "3", "LOWTIDE_PROGRESS_SECONDS": "0.1"}
        stack.worker("-P", "threads", "-c", "4", **receiver.env(**limits))
        shop = {"SHOP_BROKER": stack.redis_server.url, "SHOP_LOG": str(world.log), "SHOP_FAILS": "2"}
        stack.worker("-P", "solo", app="tests.shop", **shop)
        yield world


def gone(batch: Batch) -> bool:
    try:
        batch.summary()
    except BatchNotFound:
        return True
    return False


def test_a_webhook_gets_one_signed_event_with_all_but_the_results(world: World) -> None:
    batch = world.submit(on_finished=world.url("once"), labels={"team": "shop"})
    status = batch.wait(timeout=180)

    wait_until(lambda: world.hooks("once"), what="the event")
    [hook] = world.hooks("once")
    assert (hook.event["type"], hook.id) == ("batch.completed", f"{batch.id}:finished")
    data = hook.data
    assert (data["batch_id"], data["labels"], data["state"]) == (batch.id, {"team": "shop"}, "completed")
    assert (data["total"], data["succeeded"], data["answered"], data["attempt"]) == (3, 3, 3, 1)
    assert data["usage"]["total_token_count"] == status.usage.total_token_count > 0
    assert (data.get("cost"), data.get("paid_cost")) == (status.cost, status.paid_cost)
    assert data["results"] == f"batches/{batch.id}/results"
    assert data["finished_at"] == status.finished_at
    assert "Article" not in json.dumps(hook.event)
    wait_until(lambda: not world.events(), what="nothing is left of it")


def test_a_celery_handler_gets_the_status_and_has_it_again_after_its_failures(world: World) -> None:
    batch = world.submit(on_finished=done, labels={"flaky": ""})
    status = batch.wait(timeout=180)

    wait_until(lambda: len(world.done(batch)) == 3, what="the third attempt")
    calls = world.done(batch)
    assert [call["failed"] for call in calls] == [True, True, False]
    assert {(call["state"], call["total"], call["succeeded"], call["tokens"]) for call in calls} == {
        ("completed", 3, 3, status.usage.total_token_count)
    }
    wait_until(lambda: not world.events(), what="nothing is left of it")


def test_each_batch_of_a_bundle_has_an_event_of_its_own(world: World) -> None:
    queue = world.stack.queue(share_jobs=True, linger_seconds=600, linger_requests=3)
    batches = [
        queue.submit(requests(count), model=MODEL, on_finished="stream://bundled", labels={"n": str(count)})
        for count in (1, 2)
    ]
    assert len({batch.wait(timeout=180).bundle for batch in batches}) == 1

    wait_until(lambda: len(world.entries("bundled")) == 2, what="both events")
    entries = {entry["batch_id"]: entry for entry in world.entries("bundled")}
    for batch, count in zip(batches, (1, 2), strict=True):
        entry = entries[batch.id]
        assert (entry["v"], entry["event"], entry["delivery_id"]) == ("1", "batch.completed", f"{batch.id}:finished")
        data = json.loads(entry["data"])
        assert (data["total"], data["labels"]) == (count, {"n": str(count)})
        spool = Path(world.stack.settings().spool_url)
        lines = [(spool / name).read_bytes()[start:end] for name, start, end in data["shared_results"]]
        assert b"".join(lines).count(b"\n") == count


def test_a_cancelled_batch_has_an_event(world: World) -> None:
    world.stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    try:
        batch = world.submit(on_finished="stream://cancelled")
        batch.cancel()
        assert batch.wait(timeout=180).state == "cancelled"
    finally:
        world.stack.emulator.set_faults([])

    wait_until(lambda: world.entries("cancelled"), what="the event")
    [entry] = world.entries("cancelled")
    assert (entry["batch_id"], entry["event"]) == (batch.id, "batch.cancelled")


def test_an_event_that_no_attempt_delivers_is_a_dead_letter_and_outlives_its_batch(world: World) -> None:
    world.answers["closed"] = lambda _: Answer(500, b"no")
    batch = world.submit(on_finished=world.url("closed"))
    batch.wait(timeout=180)
    letters = DeadLetters(world.stack.settings())
    wait_until(lambda: [letter for letter in letters.list() if letter.batch_id == batch.id], what="it is parked")
    assert [text for text in batch.status().problems if "the end is not reported to http" in text]
    batch.delete()
    wait_until(lambda: gone(batch), what="the batch is deleted")
    letter = letters.get(f"{batch.id}:finished")
    assert (letter.kind, letter.batch_id, letter.detail["tries"]) == ("event", batch.id, 3)
    assert "answered 500: no" in letter.reason
    assert world.parked() == 1

    del world.answers["closed"]
    letters.redeliver(letter.id)

    wait_until(lambda: not world.events(), what="it is delivered")
    hooks = world.hooks("closed")
    assert [hook.id for hook in hooks] == [f"{batch.id}:finished"] * 4
    assert [hook.data["attempt"] for hook in hooks] == [1, 2, 3, 1]
    assert not [each for each in letters.list() if each.batch_id == batch.id]
    assert world.parked() == 0


def test_a_dropped_event_is_gone(world: World) -> None:
    world.answers["dropped"] = lambda _: Answer(500)
    batch = world.submit(on_finished=world.url("dropped"))
    batch.wait(timeout=180)
    letters = DeadLetters(world.stack.settings())
    wait_until(lambda: [letter for letter in letters.list() if letter.batch_id == batch.id], what="it is parked")

    letters.drop(f"{batch.id}:finished")

    assert not world.events()
    assert not world.stack.redis.zscore(keys.clock("lowtide.jobs"), keys.event_member(batch.id, "finished"))


def test_progress_is_told_with_new_figures_and_ends_with_the_batch(world: World) -> None:
    batch = world.submit(40, on_progress=world.url("progress"), on_finished=world.url("end"), max_attempts=1)
    batch.wait(timeout=180)

    wait_until(lambda: world.hooks("end") and not world.events(), what="the end")
    hooks = world.hooks("progress")
    assert {hook.event["type"] for hook in hooks} <= {"batch.progress"}
    answered = [hook.data["answered"] for hook in hooks]
    assert answered == sorted(set(answered))
    assert [hook.id for hook in hooks] == [f"{batch.id}:progress:{n}" for n in range(1, len(hooks) + 1)]


def test_an_event_of_a_handler_without_workers_waits_and_the_status_says_so(world: World) -> None:
    batch = world.submit(on_finished="shop.tasks.nobody")
    batch.wait(timeout=180)

    wait_until(lambda: batch.status().problems, what="the problem")
    assert "the end is not reported to shop.tasks.nobody: no worker listens" in batch.status().problems[0]
    world.stack.redis.hset(keys.batch(batch.id), "on_finished", "")
    world.stack.redis.hset(keys.entity(keys.event_member(batch.id, "finished")), "on_finished", "stream://found")
    wait_until(lambda: not world.events(), what="it is delivered")
    assert batch.status().problems == []


def test_an_event_that_is_too_old_is_dropped_also_where_it_is_parked(world: World) -> None:
    world.answers["old"] = lambda _: Answer(500)
    batch = world.submit(on_finished=world.url("old"))
    batch.wait(timeout=180)
    letters = DeadLetters(world.stack.settings())
    wait_until(lambda: [letter for letter in letters.list() if letter.batch_id == batch.id], what="it is parked")
    member = keys.event_member(batch.id, "finished")
    # It is on the clock for the day on which it is too old.
    due = world.stack.redis.zscore(keys.clock("lowtide.jobs"), member)
    ended = batch.summary().finished_at
    assert due is not None
    assert ended is not None
    assert due - ended > 29 * 86_400

    world.stack.redis.hset(keys.entity(member), "finished", ended - 31 * 86_400)
    world.stack.redis.zadd(keys.clock("lowtide.jobs"), {member: 1})

    wait_until(lambda: not world.events(), what="it is dropped")
    assert not letters.list()


def test_what_a_handler_reports_of_progress_changes_nothing(world: World) -> None:
    world.stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    try:
        batch = world.submit(on_progress="shop.tasks.done")
        client = DeliveryClient(world.stack.settings())
        member = keys.event_member(batch.id, "progress")
        for number in range(1, 6):
            delivery_id = f"{member.delivery_id}:{number}"
            assert client.started(delivery_id, 1) == 0
            assert client.status(delivery_id).id == batch.id  # type: ignore[union-attr]
            client.hand_back(delivery_id, only=None, attempt=1, error="the shop is closed")
            client.taken(delivery_id)
        record = world.stack.redis.hgetall(keys.entity(member))
        assert record
        assert b"tries" not in record
        batch.cancel()
        batch.wait(timeout=180)
    finally:
        world.stack.emulator.set_faults([])
    wait_until(lambda: not world.events(), what="it has left with its batch")


def test_a_batch_under_the_id_of_an_earlier_one_has_an_event_of_its_own(world: World) -> None:
    world.answers["again"] = lambda _: Answer(500)
    batch = world.submit(on_finished=world.url("again"))
    batch.wait(timeout=180)
    letters = DeadLetters(world.stack.settings())
    wait_until(lambda: [letter for letter in letters.list() if letter.batch_id == batch.id], what="it is parked")
    del world.answers["again"]
    # As if the id were one of the inbox, and were used once more.
    runtime = Runtime(world.stack.worker_settings())
    held = held_batch(
        a_batch(batch.id), Stage.SUBMIT, token=int(cast("bytes", world.stack.redis.hget(keys.batch(batch.id), "token")))
    )
    runtime.ledger.lose(held, ResultError(reason="REQUESTS_LOST", message="gone"))

    wait_until(lambda: not world.events(), what="it is delivered")
    assert world.hooks("again")[-1].event["type"] == "batch.failed"
    assert not letters.list()


def test_a_celery_handler_that_need_not_answer_finds_the_event(world: World) -> None:
    member = keys.event_member("b0unanswered", "finished")
    record = a_batch(
        "b0unanswered", state="completed", finished=world.stack.redis.time()[0], on_finished="shop.tasks.x@q"
    )
    runtime = Runtime(world.stack.worker_settings(handler_patience_seconds=0))
    begun = float(world.stack.redis.time()[0])
    event = EventRecord(**msgspec.structs.asdict(record))
    held = HeldEvent(member=member, stage=Stage.NOTIFY, token=1, record=event, begun=begun)

    move = notify(runtime, held)

    assert isinstance(move, Move)
    assert (move.stage, move.fields["sent_to"]) == (Stage.NOTIFY, "q")
    assert move.after >= 3600
    assert json.loads(cast("bytes", world.stack.redis.lpop("q")))["headers"]["task"] == "shop.tasks.x"


def test_the_wrong_kind_of_handler_gives_back_what_it_gets(world: World) -> None:
    batches = [
        world.submit(1, on_finished="shop.tasks.save_blurb"),
        world.submit(1, on_result="shop.tasks.done"),
    ]
    for batch in batches:
        batch.wait(timeout=180)

    letters = DeadLetters(world.stack.settings())

    def reasons() -> dict[str | None, str]:
        return {letter.batch_id: letter.reason for letter in letters.list()}

    wait_until(lambda: {batch.id for batch in batches} <= reasons().keys(), what="both are parked")
    assert "result_handler makes tasks for on_result" in reasons()[batches[0].id]
    assert "batch_handler makes tasks for on_finished and on_progress" in reasons()[batches[1].id]
    for letter in letters.list():
        letters.drop(letter.id)


def posted(world: World, batch_id: str, form: str, attempt: int = 1, **fields: Any) -> Hook:
    """The request that the end of a batch causes in this form; its signature is verified on its bytes."""
    url = world.url(f"{form}/{attempt}")
    record = a_batch(batch_id, state="completed", on_finished=url, **fields)
    event = EventRecord(**msgspec.structs.asdict(record) | {"tries": attempt - 1})
    member = keys.event_member(batch_id, "finished")
    world.stack.redis.hset(keys.entity(member), mapping={"token": "1", "busy": "1"})
    secrets = {world.receiver.url: SECRET}
    settings = world.stack.worker_settings(
        event_format=form, webhook_secrets=secrets, webhook_allow_private=True, webhook_allow_http=True
    )
    now = float(world.stack.redis.time()[0])
    held = HeldEvent(member=member, stage=Stage.NOTIFY, token=1, record=event, begun=now)

    assert isinstance(notify(Runtime(settings), held), Done)

    [hook] = world.hooks(f"{form}/{attempt}")
    return hook


LABELS = {"order": "17", "name": "Müller & Söhne \u2028 <b>\x07"}


def test_the_webhook_of_a_batch_that_has_ended_is_a_cloud_event_by_setting(world: World) -> None:
    finished = int(world.stack.redis.time()[0]) - 0.75
    given: dict[str, Any] = {"labels": LABELS, "finished": finished}
    first = posted(world, "b0cloudy", "cloudevents", **given)
    again = posted(world, "b0cloudy", "cloudevents", 2, **given)
    plain = posted(world, "b0cloudy", "standard", **given)

    assert violations(first.headers, first.body) == violations(again.headers, again.body) == []
    assert violations(plain.headers, plain.body) != []
    event = first.event
    assert datetime.fromisoformat(event.pop("time")).timestamp() == finished
    assert datetime.fromisoformat(again.event.pop("time")).timestamp() == finished
    attributes = {name: value for name, value in event.items() if name != "data"}
    assert attributes == {
        "specversion": "1.0",
        "id": "b0cloudy:finished",
        "source": f"/lowtide/{world.stack.installation}",
        "type": "batch.completed",
        "subject": "b0cloudy",
        "datacontenttype": "application/json",
    }
    # Source and id are the same at each attempt, and those of the signed headers.
    assert {name: value for name, value in again.event.items() if name != "data"} == attributes
    assert first.id == again.id == plain.id == event["id"]
    assert first.data == plain.data == again.data | {"attempt": 1}
    assert first.data["labels"] == LABELS
