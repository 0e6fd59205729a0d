"""The counts of a batch: reasons, models, and the tokens of all rows that were paid for, each counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from threading import Lock
from typing import Any

import pytest
from tests.bills import bill, paid_by_day
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchStatus, Usage
from lowtide.protocol.daily_costs import DayCosts

LITE = "gemini-3.5-flash-lite"
VERSION = f"{MODEL}-002"
USED = {"promptTokenCount": 5, "thoughtsTokenCount": 7, "candidatesTokenCount": 11, "totalTokenCount": 23}


class Model:
    """A model that answers nothing at the first attempt of some requests, and sometimes as another model."""

    def __init__(self) -> None:
        self.billed: Counter[str] = Counter()
        """How often each request was answered."""
        self._lock = Lock()

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt = request["contents"][0]["parts"][0]["text"]
        with self._lock:
            self.billed[prompt] += 1
            first = self.billed[prompt] == 1
        number = int("".join(char for char in prompt if char.isdecimal()))
        text = " " if number % 3 == 0 and first else "Blue."
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
        if number == 1:
            candidate = {"finishReason": "SAFETY"}
        model = LITE if number == 2 else VERSION
        return {"candidates": [candidate], "usageMetadata": USED, "modelVersion": model}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("counts"), LOWTIDE_SEGMENT_ROWS="4") as stack:
        yield stack


@pytest.fixture(scope="module")
def finished(stack: Stack) -> Iterator[tuple[BatchStatus, Model]]:
    """A batch of ten requests, of which four ran twice. A worker died when its first segment was to be counted."""
    stack.emulator.answer = model = Model()
    first = stack.worker("-P", "solo", LOWTIDE_CRASH_AT="deliver.before-record")
    batch = stack.queue().submit(blurbs(10), model=MODEL)
    wait_until(lambda: not first.alive, what="the first worker dies")
    worker = stack.worker("-P", "solo")
    yield batch.wait(timeout=180), model
    worker.stop()


def test_results_without_success_are_counted_by_reason(finished: tuple[BatchStatus, Model]) -> None:
    status, _ = finished

    assert status.reasons == {"SAFETY": 1}


def test_another_model_that_answered_is_a_warning_and_another_version_is_none(
    stack: Stack, finished: tuple[BatchStatus, Model]
) -> None:
    status, _ = finished

    assert status.models == {VERSION: 9, LITE: 1}
    assert status.warnings == [f"{LITE} gave 1 of 10 results; {MODEL} was asked for"]
    assert not status.problems
    assert stack.logs().count(f"asked for {MODEL} and is answered by {LITE}") == 1
    assert VERSION not in stack.logs()


def test_the_cost_is_that_of_the_tokens_that_the_provider_billed_by_the_model_that_answered(
    stack: Stack, finished: tuple[BatchStatus, Model]
) -> None:
    status, _ = finished
    tokens = stack.emulator.stats().billed_tokens
    results = list(stack.queue().get(status.id).results())

    assert tokens.keys() == {VERSION, LITE}
    assert status.paid_cost == bill(tokens) == 13 * (5 * 750 + 18 * 4500) + 5 * 150 + 18 * 1250
    assert status.cost == sum(result.cost or 0 for result in results) == status.paid_cost - 4 * (5 * 750 + 18 * 4500)
    assert status.unpriced == 0
    paid = paid_by_day(stack.redis)
    assert paid == DayCosts(requests=14, input=14 * 5, output=14 * 18, cost=status.paid_cost)


def test_tokens_of_rows_that_ran_again_are_counted_apart(finished: tuple[BatchStatus, Model]) -> None:
    status, model = finished

    assert sum(model.billed.values()) == 14
    assert status.usage.total_token_count == 10 * 23
    assert status.discarded_usage == Usage(
        prompt_token_count=4 * 5,
        thoughts_token_count=4 * 7,
        candidates_token_count=4 * 11,
        total_token_count=4 * 23,
    )
