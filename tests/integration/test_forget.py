"""A deleted batch takes along what is its own, and nothing of any other, also where a delete comes late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.records import a_batch, hash_of
from tests.stack import Stack

from lowtide import BatchState, Request
from lowtide.batch import Batch
from lowtide.protocol import JobRecord, Member, Stage, keys
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.delete import delete
from lowtide_worker.state import HeldBatch, Superseded

MODEL = "gemini-3.5-flash"
HANDLER = "shop.save"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("forget")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings(handler_window=1))


def finished(stack: Stack, key: str | None = None) -> Batch:
    """A batch that is over, as far as the store knows."""
    batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL, idempotency_key=key)
    stack.redis.hset(
        keys.batch(batch.id), mapping={"state": BatchState.COMPLETED, "stage": "", "jobs": 0, "finished": 1}
    )
    return batch


def deleting(runtime: Runtime, batch_id: str, **fields: Any) -> HeldBatch:
    """A batch whose delete has begun."""
    member = keys.batch_member(batch_id)
    known = hash_of(a_batch(batch_id, stage=Stage.DELETE))
    runtime.redis.hset(keys.entity(member), mapping=known | {"token": 0, "on_result": "", "jobs": 0} | fields)
    held = runtime.clock.begin(Stage.DELETE, member, 0)
    assert isinstance(held, HeldBatch), held
    return held


def with_segments(runtime: Runtime, job: str, count: int) -> list[Member]:
    """A job whose segments wait to be delivered."""
    runtime.redis.hset(keys.job(job), mapping={"id": job, "segments": count, "stage": "", "token": 0})
    members = [keys.segment_member(job, number) for number in range(count)]
    for member in members:
        fields: dict[Any, Any] = {"stage": Stage.DELIVER, "token": 0, "busy": 0}
        runtime.redis.hset(keys.entity(member), mapping=fields)
        runtime.redis.zadd(keys.clock(Stage.DELIVER.queue), {member: 9e9})
    return members


def test_a_late_delete_leaves_the_key_to_the_next_batch(stack: Stack, runtime: Runtime) -> None:
    first = finished(stack, "nightly")
    key = {"idempotency_key": "nightly"}
    late = deleting(runtime, first.id, **key)
    # Another took over and came to the end, and a batch of the same key was submitted since.
    delete(runtime, deleting(runtime, first.id, **key))
    second = finished(stack, "nightly")
    assert second.id != first.id

    with pytest.raises(Superseded):
        runtime.deleted.forget(late, lambda: None)

    assert finished(stack, "nightly").id == second.id


def test_a_key_that_is_another_batchs_by_now_is_not_freed(stack: Stack, runtime: Runtime) -> None:
    first = finished(stack, "nightly")
    runtime.redis.set(keys.idempotency("nightly"), "b0second fingerprint")

    delete(runtime, deleting(runtime, first.id, idempotency_key="nightly"))

    assert runtime.redis.get(keys.idempotency("nightly")) == b"b0second fingerprint"
    assert not runtime.redis.exists(keys.batch(first.id))


def test_a_batch_whose_retention_is_over_is_deleting_from_the_first_step_on(
    stack: Stack, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = finished(stack)
    seen: list[BatchState] = []

    def jobs(_: HeldBatch) -> list[JobRecord]:
        seen.append(batch.status().state)
        return []

    monkeypatch.setattr(runtime.ledger, "jobs", jobs)
    delete(runtime, deleting(runtime, batch.id))

    assert seen == [BatchState.DELETING]


def test_dead_letters_of_a_batch_with_a_longer_name_stay(runtime: Runtime) -> None:
    mine, others = with_segments(runtime, "nightly-1", 1), with_segments(runtime, "nightly-2-1", 2)
    runtime.redis.zadd(keys.PARKED, dict.fromkeys([*mine, *others], 1.0))

    runtime.deleted.forget(deleting(runtime, "nightly", jobs=2), lambda: None)

    assert runtime.redis.zrange(keys.PARKED, 0, -1) == [member.encode() for member in others]
    assert all(runtime.redis.exists(keys.entity(member)) for member in others)


def test_a_bundle_that_never_got_its_files_leaves_no_requests(runtime: Runtime) -> None:
    runtime.redis.hset(keys.requests("b0bundle"), "b0small", "its requests")

    runtime.deleted.forget(deleting(runtime, "b0bundle"), lambda: None)

    assert not list(runtime.redis.scan_iter("*b0bundle*"))


def test_places_in_a_handlers_hands_go_to_those_who_wait(runtime: Runtime) -> None:
    held, waiting = with_segments(runtime, "b0first-1", 1), with_segments(runtime, "b0second-1", 2)
    runtime.redis.zadd(keys.in_hand(HANDLER), {held[0]: 9e9})
    runtime.redis.zadd(keys.queued(HANDLER), {waiting[0]: 1, waiting[1]: 2})

    runtime.deleted.forget(deleting(runtime, "b0first", jobs=1, on_result=HANDLER), lambda: None)

    assert runtime.redis.zcard(keys.in_hand(HANDLER)) == 0
    scores = [runtime.redis.zscore(keys.clock(Stage.DELIVER.queue), member) for member in waiting]
    assert scores[0] is not None
    assert scores[0] < 9e9, "the first that waits is due"
    assert scores[1] == 9e9, "one place wakes one"
    assert not list(runtime.redis.scan_iter("*b0first*"))
