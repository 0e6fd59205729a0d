"""Batches under a budget, from submit to their end: by the provider's own bill, none costs more than it may."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.bills import billed
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Awaited, Batch, BatchState, InvalidBatch, Request, Shortage
from lowtide.protocol import keys

MODEL = "gemini-3.5-flash"
TEN = "x" * 40
"""A text of ten tokens, here and by the emulator's own rule."""
EACH = 10 * 750 + 60 * 4500
"""The most that a request of these tests costs, in nano-dollars."""
BUDGETS = json.dumps({"team=catalog": {"day": EACH * 10 / 10**9}, "team=nobody": {"month": 1}})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("spending"), LOWTIDE_BUDGETS=BUDGETS) as stack:
        stack.worker("-P", "threads", "-c", "2")
        yield stack


def requests(count: int) -> list[Request]:
    return [Request(key=f"{n}", contents=TEN, config={"max_output_tokens": 60}) for n in range(count)]


def shortage_of(batch: Batch) -> Shortage:
    """The budget that a batch waits for, once nothing under way can leave more of it."""

    def final() -> Shortage | None:
        waiting = batch.status().waiting
        if waiting is None or waiting.budget is None or waiting.budget.reserved or not waiting.budget.spent:
            return None
        assert waiting.why is Awaited.BUDGET
        assert waiting.reason == f"{waiting.budget}"
        return waiting.budget

    return wait_until(final, what=f"{batch} waits for a budget")


def test_a_batch_costs_no_more_than_its_max_cost_and_says_why_the_rest_has_failed(stack: Stack) -> None:
    limit = EACH * 20

    batch = stack.queue().submit(requests(100), model=MODEL, max_cost=limit / 10**9)
    status = batch.wait(timeout=180)

    bill = billed(stack.emulator.jobs(), [batch.id])
    assert (status.state, status.paid_cost) == (BatchState.COMPLETED, bill)
    assert limit * 0.9 < bill <= limit
    assert status.succeeded > 20, "answers were shorter than they might have been, which pays for others"
    assert status.reasons == {"BUDGET": 100 - status.succeeded}
    [error] = {result.error.message for result in batch.results() if result.error}
    assert "max_cost" in error
    assert stack.redis.exists(keys.reserved(batch.id), keys.waiting_for(batch.id)) == 0


def test_answers_that_say_nothing_count_in_the_max_cost_each_time_they_are_paid(stack: Stack) -> None:
    limit = EACH * 20
    empty = [
        Request(key=f"{n}", contents="[[no_parts]]".ljust(40), config={"max_output_tokens": 60}) for n in range(40)
    ]

    batch = stack.queue().submit(empty, model=MODEL, max_cost=limit / 10**9, max_attempts=2)
    status = batch.wait(timeout=180)

    bill = billed(stack.emulator.jobs(), [batch.id])
    assert status.paid_cost == bill <= limit
    assert (status.cost or 0) < bill
    assert status.failed == 40
    assert status.reasons.keys() == {"BUDGET", "EMPTY"}


def test_a_batch_that_waits_goes_on_with_a_higher_max_cost(stack: Stack) -> None:
    batch = stack.queue().submit(requests(30), model=MODEL, max_cost=f"{EACH * 5 / 10**9:.9f}", over_budget="wait")
    shortage = shortage_of(batch)
    assert (shortage.budget, shortage.limit) == (batch.id, EACH * 5)
    assert f"{shortage}".startswith("the max_cost of the batch leaves too little")

    batch.set_max_cost("1")

    assert batch.wait(timeout=180).succeeded == 30


def test_requests_that_wait_for_a_budget_expire_with_this_reason_at_the_deadline(stack: Stack) -> None:
    first = Request(key="long", contents=TEN * 20, config={"max_output_tokens": 60})
    # It pays for the second request alone. The deadline leaves a busy machine time to find that out.
    cost = f"{EACH / 10**9:.9f}"
    batch = stack.queue().submit([first, *requests(1)], model=MODEL, max_cost=cost, over_budget="wait", deadline=8.0)

    status = batch.wait(timeout=180)

    assert (status.expired, status.reasons, status.paid_cost) == (2, {"BUDGET": 2}, 0)


def test_work_over_the_budget_of_a_label_waits_and_other_work_does_not(stack: Stack) -> None:
    queue = stack.queue(budgets=json.loads(BUDGETS))
    catalog = queue.submit(requests(60), model=MODEL, labels={"team": "catalog"}, share=True)
    search = queue.submit(requests(5), model=MODEL, labels={"team": "search"}, share=True)

    assert search.wait(timeout=180).succeeded == 5
    shortage = shortage_of(catalog)
    assert (shortage.budget, shortage.period) == ("team=catalog", "day")
    assert shortage.limit * 0.9 < shortage.spent <= shortage.limit
    assert catalog.summary().succeeded > 0
    catalog.cancel()
    assert catalog.wait(timeout=180).cancelled > 0


def test_a_max_cost_that_pays_for_nothing_is_refused_with_the_numbers(stack: Stack) -> None:
    queue = stack.queue(budgets=json.loads(BUDGETS))
    with pytest.raises(InvalidBatch, match=r"max_cost: \$0.000277499 is below \$0.0002775,.*request with its answer"):
        queue.submit(requests(2), model=MODEL, max_cost=(EACH - 1) / 10**9)
    with pytest.raises(InvalidBatch, match=r"max_cost: no price is known for gemini-9-flash.*LOWTIDE_PRICES"):
        queue.submit(requests(2), model="gemini-9-flash", max_cost="1")
    with pytest.raises(InvalidBatch, match=r"labels: .*no price is known for gemini-9-flash"):
        queue.submit(requests(2), model="gemini-9-flash", labels={"team": "catalog"})
    dear = Request(key="dear", contents=TEN, config={"max_output_tokens": 1000})
    labels = {"team": "catalog"}
    never = r"labels: one request may cost \$0.0045075, more than the whole day budget of team=catalog, \$0.002775; set"
    for refused in (
        lambda: queue.submit([*requests(2), dear], model=MODEL, labels=labels),
        lambda: queue.add(dear, model=MODEL, labels=labels),
        lambda: queue.estimate([dear], model=MODEL, labels=labels),
    ):
        with pytest.raises(InvalidBatch, match=never):
            refused()
    without = queue.submit(requests(1), model="gemini-3.5-flash")
    with pytest.raises(InvalidBatch, match="without a max_cost"):
        without.set_max_cost(1)
    with pytest.raises(InvalidBatch, match="max_cost: write US dollars"):
        without.set_max_cost(-1)


def test_a_submit_for_a_model_without_a_price_is_warned_of_once(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    queue = stack.queue()

    batches = [queue.submit(requests(1), model="gemini-3.5-flahs") for _ in range(2)]

    assert [text for text in caplog.messages if "no price is known for gemini-3.5-flahs (the nearest" in text] == [
        "no price is known for gemini-3.5-flahs (the nearest name with one is gemini-3.5-flash): check the name; if it "
        "is right, write its price into the file that LOWTIDE_PRICES names"
    ]
    assert all(batch.wait(timeout=180).finished for batch in batches)
