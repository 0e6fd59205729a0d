"""Scripts against a real server: it knows all of them, and learns them again in pipelines and transactions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.stack import Stack

from lowtide.protocol import Queue, Stage, keys
from lowtide.store import scripts as producer_scripts
from lowtide.store.scripting import Declaration
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import scripts

MEMBER = keys.batch_member("b0scripts")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with Stack(tmp_path_factory.mktemp("scripts")) as stack:
        yield Runtime(stack.worker_settings())


@pytest.mark.parametrize(
    "declaration",
    [
        pytest.param(found, id=name)
        for module in (producer_scripts, scripts)
        for name, found in vars(module).items()
        if isinstance(found, Declaration)
    ],
)
def test_the_server_compiles_each_script(runtime: Runtime, declaration: Declaration[...]) -> None:
    assert runtime.redis.script_load(declaration.text) == declaration.load(runtime.redis)._run.sha


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_runs_a_script_that_the_server_has_forgotten(runtime: Runtime, transaction: bool) -> None:
    runtime.redis.flushdb()
    runtime.redis.hset(keys.entity(MEMBER), "stage", Stage.SUBMIT)
    put_back = scripts.put_back.load(runtime.redis)
    runtime.redis.script_flush()

    with runtime.redis.pipeline(transaction=transaction) as pipe:
        pipe.hget(keys.entity(MEMBER), "stage")
        for _ in range(2):
            put_back.within(pipe)(
                entity=keys.entity(MEMBER),
                clock=keys.clock(Queue.JOBS),
                other_clocks=[keys.clock(Queue.RESULTS)],
                member=MEMBER,
                stage=Stage.SUBMIT,
            )
        assert pipe.execute() == [Stage.SUBMIT.encode(), 1, 0]


def test_a_script_runs_that_the_server_has_forgotten(runtime: Runtime) -> None:
    runtime.redis.flushdb()
    started = producer_scripts.started.load(runtime.redis)
    segment = keys.entity(keys.segment_member("b0scripts-1", 0))
    runtime.redis.hset(segment, "stage", Stage.DELIVER)
    runtime.redis.script_flush()

    assert [started(segment=segment, attempt=attempt) for attempt in (1, 1, 2, 1)] == [1, 2, 1, 0]
