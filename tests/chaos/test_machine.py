"""The state machine: everything that may happen, in every order that Hypothesis thinks of, step by step.

A run follows from its seed alone, schedule included. A failure is printed as the shortest list of steps that shows it,
after the seed of its round: MACHINE_SEED=<seed> MACHINE_STEPS=1 repeats that. MACHINE_STEPS says how many steps to go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.chaos.machine_output import Row
from tests.chaos.machine_simulation import TASK, Simulation
from tests.chaos.machine_steps import STEPS, Figures, Machine

from lowtide.protocol import Queue, Stage, job_id, keys
from lowtide.states import JobState
from lowtide_cli.local import EmbeddedRedis

MOST_STEPS = int(os.environ.get("MACHINE_STEPS", "1200"))
FIRST_SEED = int(os.environ.get("MACHINE_SEED", "1"))
_PHASES = [Phase.generate, Phase.shrink]
_STEPS_A_RUN, _RUNS_A_ROUND = 100, 12
_TROUBLES = sorted(name for name, one in STEPS.items() if one.trouble)


@cache
def _next_step(possible: tuple[str, ...]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    @st.composite
    def choose(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
        name = draw(st.sampled_from(possible))
        return name, {choice: draw(strategy) for choice, strategy in STEPS[name].choices.items()} if name else {}

    return choose()


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    folder = tmp_path_factory.mktemp("machine")
    with EmbeddedRedis(folder / "redis") as server, pytest.MonkeyPatch.context() as patch:
        yield Simulation(server.url, folder / "spool", patch)


@pytest.mark.timeout(MOST_STEPS // 10 + 600)
def test_nothing_is_lost_or_paid_twice_whatever_happens_in_whatever_order(simulation: Simulation) -> None:
    print(run_rounds(simulation, frozenset(name for name, one in STEPS.items() if one.restores)))


@pytest.mark.skipif("MACHINE_RESTORES" not in os.environ, reason="MACHINE_RESTORES=1 runs it")
@pytest.mark.timeout(MOST_STEPS // 10 + 600)
def test_nothing_is_lost_or_paid_twice_when_the_store_is_put_back_to_an_earlier_time(simulation: Simulation) -> None:
    print(run_rounds(simulation, frozenset()))


@pytest.mark.parametrize("place", ["deliver.after-grant", "deliver.before-record"])
def test_what_a_dead_worker_was_granted_from_output_that_is_gone_runs_again(simulation: Simulation, place: str) -> None:
    machine = Machine(simulation, Figures())
    simulation.provider.ranged = True
    machine.submit(requests=2, handler=None, key=None, dies_after=None, attempts=3, mode="file", priority=0)
    while not any(stage is Stage.DELIVER for stage, _ in simulation.bag):
        machine.work(messages=1)
        if not simulation.bag:
            machine.answer_all()
            machine.wait()
    worker = simulation.actor(0, *simulation.bag.pop())
    while worker.at != place:
        worker.step(1)
        assert not worker.done
    machine.dead.append(worker)

    simulation.provider.lose(simulation.provider.all[0], output_only=True)

    machine.look()
    machine.end()
    machine.close()


def test_a_job_of_requests_that_ran_again_is_adopted_by_the_same_requests_after_a_restore(
    simulation: Simulation,
) -> None:
    """The number of a job that the store has forgotten is not given to other requests, and its own do not pay again."""
    machine, provider = Machine(simulation, Figures()), simulation.provider
    machine.submit(requests=4, handler=None, key=None, dies_after=None, attempts=3, mode="file", priority=0)
    _work_until(machine, lambda: len(provider.all) == 2)
    [expected] = simulation.expected.values()
    machine.back_up()
    provider.finish(provider.all[0], JobState.EXPIRED, [Row.OK, Row.MISSING, Row.OK], with_output=True, shuffle=0)
    _work_until(machine, lambda: len(provider.all) == 3)
    provider.finish(provider.all[2], JobState.SUCCEEDED, [Row.OK], with_output=True, shuffle=0)

    machine.restore()
    provider.finish(provider.all[1], JobState.EXPIRED, [Row.MISSING], with_output=True, shuffle=0)
    # The other job settles first, and its request runs again in what would be the third job too.
    later: dict[str, float] = {keys.job_member(job_id(expected.id, 1)): simulation.time.time() + 3_000}
    simulation.redis.zadd(keys.clock(Queue.JOBS), later, xx=True)
    _work_until(machine, lambda: int(simulation.known(expected.id)["jobs"]) > 2)

    machine.look()
    machine.end()
    machine.close()


def test_what_a_handler_gives_back_after_a_restore_is_stored_first(simulation: Simulation) -> None:
    machine, provider = Machine(simulation, Figures()), simulation.provider
    machine.submit(requests=2, handler=TASK, key=None, dies_after=None, attempts=1, mode="file", priority=0)
    _work_until(machine, lambda: bool(provider.all))
    machine.back_up()
    machine.answer_all()
    _work_until(machine, lambda: bool(simulation.in_hand))
    [delivery] = simulation.in_hand

    machine.restore()
    simulation.in_hand.clear()
    simulation.answer(delivery, failed=[])

    machine.look()
    machine.end()
    machine.close()


@pytest.mark.parametrize("jobs", [1, 2], ids=["before they run again", "while they run again"])
def test_a_deleted_batch_that_a_restore_brings_back_ends_also_where_answers_go_on(
    simulation: Simulation, jobs: int
) -> None:
    machine, provider = Machine(simulation, Figures()), simulation.provider
    machine.submit(requests=1, handler=None, key=None, dies_after=None, attempts=1, mode="file", priority=0)
    [expected] = simulation.expected.values()
    _work_until(machine, lambda: bool(provider.all))
    provider.finish(provider.all[0], JobState.SUCCEEDED, [Row.PARTIAL], with_output=True, shuffle=0)
    job = keys.job(job_id(expected.id, 1))
    _work_until(machine, lambda: simulation.redis.hexists(job, "partial_segments") and len(provider.all) == jobs)
    machine.back_up()
    simulation.rest()
    simulation.queue.get(expected.id).delete()
    simulation.rest()

    machine.restore()

    machine.look()
    machine.end()
    machine.close()


def _work_until(machine: Machine, condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        if machine.simulation.bag:
            machine.work(messages=1)
        else:
            machine.wait()
    raise AssertionError("it never came")


def run_rounds(simulation: Simulation, never: frozenset[str]) -> Figures:
    """Rounds of runs without some steps, until there were enough steps."""
    figures = Figures()

    @settings(
        max_examples=_RUNS_A_ROUND,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=_PHASES,
    )
    @given(st.data())
    def one_run(data: st.DataObject) -> None:
        without = never | data.draw(st.frozensets(st.sampled_from(_TROUBLES)))
        machine = Machine(simulation, figures)
        try:
            for _ in range(_STEPS_A_RUN):
                # The first of them is no step at all, so that what is not needed for a failure can be left out.
                name, choices = data.draw(_next_step(("", *machine.possible(without))))
                if name:
                    STEPS[name].do(machine, **choices)
                    machine.look()
            machine.end()
        finally:
            machine.close()

    for number in count(FIRST_SEED):
        print(f"MACHINE_SEED={number} ({figures.steps} steps so far)", flush=True)
        seed(number)(one_run)()
        if figures.steps >= MOST_STEPS:
            return figures
    raise AssertionError("unreachable")
