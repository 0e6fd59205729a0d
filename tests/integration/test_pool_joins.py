"""The script that closes a job: when its requests join the job of their pool, and when they get a job of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.records import held_batch, held_job
from tests.stack import Stack

from lowtide.protocol import BatchRecord, JobRecord, Stage, job_id, keys, read_record
from lowtide_worker.intents import with_numbers
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Ordinals, OutdatedError, Retry, parted

JOBS, EACH, SIZE = 4, 20, 100
MOST, MOST_BYTES, ENOUGH = 8, 8 * SIZE, 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Without a worker."""
    with Stack(tmp_path_factory.mktemp("joins")) as stack:
        yield stack


class World:
    """A batch with jobs that the test closes."""

    def __init__(self, stack: Stack) -> None:
        stack.empty_redis()
        settings = stack.worker_settings(
            max_requests_per_job=MOST, max_bytes_per_job=MOST_BYTES, linger_requests=ENOUGH, linger_seconds=600
        )
        self.runtime = Runtime(settings)
        self.redis = stack.redis
        self.id = stack.queue().submit(blurbs(JOBS * EACH), model=MODEL).id
        batch = held_batch(self.batch, Stage.SUBMIT, self.batch.token)
        cuts = [Ordinals(first=first, last=first + EACH) for first in range(0, JOBS * EACH, EACH)]
        self.runtime.ledger.draft(batch, 1, cuts)
        self.runtime.ledger.plan(batch, JOBS)

    @property
    def batch(self) -> BatchRecord:
        return read_record(BatchRecord, cast("dict[bytes, bytes]", self.redis.hgetall(keys.batch(self.id))))

    def job(self, number: int) -> JobRecord:
        record = self.runtime.ledger.job(job_id(self.id, number))
        assert record is not None
        return record

    def carried(self, number: int) -> list[int]:
        return list(self.runtime.ledger.carried(held_job(self.job(number), self.batch, Stage.CREATE)))

    def close(
        self, number: int, *again: int, pool: str = "2|0|0|0", size: int = SIZE, joins: tuple[str, str] | None = None
    ) -> None:
        """Closes a job, some of whose requests run again: those of these ordinals.

        With `joins`, their answers go on: the job of the pool continues the file `joins[0]` now, and `joins[1]` then.
        """
        job = self.job(number)
        some = parted(Ordinals(first=job.first, last=job.last), again)[0]
        assert some is not None
        retry = Retry.of(job, some).again().pooled(pool, size * len(again))
        if joins is not None:
            retry = retry.continued(f"index of {number}").joining(*joins)
        held = held_job(job, self.batch, Stage.SETTLE, job.token)
        self.runtime.ledger.close(held, tidy=lambda: None, retries=[retry])

    def due(self, number: int) -> float:
        """How long until a job is due, in seconds."""
        score = self.redis.zscore(keys.clock(Stage.CREATE.queue), keys.job_member(job_id(self.id, number)))
        assert isinstance(score, float)
        return score - self.runtime.clock.now()


@pytest.fixture
def world(stack: Stack) -> World:
    return World(stack)


def test_requests_of_later_jobs_join_from_both_sides(world: World) -> None:
    world.close(3, 45, 59)
    world.close(1, 3)
    world.close(2, 21, 39)

    assert world.carried(5) == [3, 21, 39, 45, 59]
    job = world.job(5)
    assert (job.attempt, job.requests, job.bytes, job.last) == (2, 5, 5 * SIZE, 60)
    assert (world.batch.jobs, world.batch.open) == (5, 2)
    assert world.due(5) > 500


def test_a_job_with_enough_requests_is_due(world: World) -> None:
    world.close(1, 0, 1, 2)
    assert world.due(5) > 500

    world.close(2, 20, 30, 39)

    assert world.due(5) <= 0


def test_the_last_that_might_join_makes_a_job_due(world: World) -> None:
    for number in range(1, JOBS):
        world.close(number, EACH * (number - 1))
        assert world.due(5) > 500

    world.close(JOBS, JOBS * EACH - 1)

    assert world.due(5) <= 0
    assert world.carried(5) == [0, 20, 40, 79]
    assert world.batch.open == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"busy": 1},
        {"granted": 5},
        {"input": "files/a"},
        {"creates": 1},
        {"state": "creating"},
        {"bytes": ""},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_requests_join_no_job_whose_creation_has_begun(world: World, fields: dict[str, str | int]) -> None:
    world.close(1, 0)
    world.redis.hset(keys.job(job_id(world.id, 5)), mapping=cast("Any", fields))

    world.close(2, 20)

    assert (world.carried(5), world.carried(6)) == ([0], [20])
    assert world.batch.open == 4
    world.close(3, 40)
    assert world.carried(6) == [20, 40]


def test_requests_join_no_job_that_has_no_room(world: World) -> None:
    world.close(1, *range(5))
    world.close(2, *range(20, 24))
    world.close(3, 40, size=5 * SIZE)

    assert [world.carried(number) for number in (5, 6, 7)] == [[*range(5)], [*range(20, 24)], [40]]


def test_requests_of_other_pools_do_not_join(world: World) -> None:
    world.close(1, 0)
    world.close(2, 20, pool="2|1|0|0")
    world.close(3, 40)

    assert (world.carried(5), world.carried(6)) == ([0, 40], [20])


def test_answers_join_only_the_file_that_they_were_put_together_with(world: World) -> None:
    world.close(1, 0, joins=("", ""))
    world.close(2, 20, joins=("index of 1", "index of both"))
    assert (world.carried(5), world.job(5).partial) == ([0, 20], "index of both")

    for before in ("index of 1", ""):
        with pytest.raises(OutdatedError):
            world.close(3, 40, joins=(before, "another index"))
    assert (world.carried(5), world.batch.jobs, world.batch.open) == ([0, 20], 5, 3)

    world.close(3, 40, joins=("index of both", "index of all"))
    assert (world.carried(5), world.job(5).partial) == ([0, 20, 40], "index of all")


def test_a_job_that_gets_no_more_waits_no_longer(world: World) -> None:
    world.close(1, *range(5))
    assert world.due(5) > 500

    world.close(2, *range(20, 24))

    assert world.due(5) <= 0 < 500 < world.due(6)


def test_no_request_joins_a_job_that_redis_had_forgotten(world: World) -> None:
    forgotten = {7: Ordinals(first=1, last=41, bitmap=bytes([0x80, 0, 0, 0, 0x01]))}
    again = {number: parted(Ordinals(first=0, last=80), some)[0] for number, some in ((1, (1, 2)), (3, (41,)))}
    world.close(2, 20)

    for number in (1, 3):
        some = again[number]
        assert some is not None
        job = world.job(number)
        retries = with_numbers([Retry.of(job, some).again().pooled("2|0|0|0", SIZE)], forgotten)
        held = held_job(job, world.batch, Stage.SETTLE, job.token)
        world.runtime.ledger.close(held, tidy=lambda: None, retries=retries, beyond=max(forgotten, default=0))
        forgotten = {}

    # Job 7 keeps the request that the provider has, and is due. The pool's own job gets the one that came later.
    assert (world.carried(5), world.carried(7), world.carried(8)) == ([20, 41], [1], [2])
    assert world.due(7) <= 0
    assert world.batch.jobs == 8
