"""Whatever happens to processes, Redis and the spool, each request ends once and is paid once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chaos import (
    host_scenarios,
    memory_scenarios,
    message_scenarios,
    process_scenarios,
    redis_scenarios,
    spool_scenarios,
)
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.invariants import Figures
from tests.chaos.pool import POOL_SIZE, Plan, StackPool
from tests.chaos.selection import selected

_MODULES = (process_scenarios, redis_scenarios, message_scenarios, spool_scenarios, memory_scenarios, host_scenarios)
SCENARIOS = {name: scenario for module in _MODULES for name, scenario in module.SCENARIOS.items()}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def plan(request: pytest.FixtureRequest, pool: StackPool) -> Iterator[Plan[Figures]]:
    plan = Plan(pool, lambda name: pool.run(SCENARIOS[str(name)]))
    plan.begin(selected(request, "what"))
    yield plan
    plan.end()
    if figures := plan.results():
        print(f"\nInfrastructure faults\n{sum(figures, Figures()).table()}")


@pytest.mark.parametrize("what", SCENARIOS)
def test_every_request_ends_once_and_is_paid_once_when(what: str, plan: Plan[Figures]) -> None:
    figures = plan.result(what)

    assert figures.lost == 0
    assert figures.double_counted == 0


def test_a_stack_whose_scenario_has_failed_is_not_used_again(pool: StackPool) -> None:
    used: list[ChaosStack] = []

    def fails(stack: ChaosStack) -> None:
        used.append(stack)
        stack.redis_server.kill()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        pool.run(fails)
    for _ in range(2 * POOL_SIZE):
        pool.run(used.append)

    assert used[0] not in used[1:]
