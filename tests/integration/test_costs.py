"""The cost of results and batches: what the emulator has billed by the price table, to the nano-dollar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import pytest
from tests.bills import bill, billed
from tests.integration.blurbs import MODEL
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, Kind, Request
from lowtide.pricing import PriceTable
from lowtide.protocol import keys

HEARS = "gemini-9-hears"
PRICES = """
price = [
  { %s, input = 1, cached = 0.5, output = 2 },
  { %s, modality = "audio", input = 5, cached = 3 },
  { %s, modality = "image", input = 7, cached = 7, output = 30 },
]
"""
SAME = f'model = "{HEARS}", tiers = ["batch"], read = 2026-11-01, source = "the tests"'
BY_MODALITY = {
    "promptTokenCount": 100,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "AUDIO", "tokenCount": 70}],
    "cachedContentTokenCount": 20,
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
    "candidatesTokenCount": 50,
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 40}],
    "toolUsePromptTokenCount": 3,
    "thoughtsTokenCount": "9",
    "totalTokenCount": 162,
}
ONE = 5 * 750 + 11 * 4500
"""Nano-dollars of any other row."""
COST_BY_MODALITY = 1000 * (33 * 1 + 50 * 5 + 20 * 3 + 19 * 2 + 40 * 30)
"""30 text and 3 of tools, 70 of audio of which 20 are cached, 10 text and 9 thoughts, 40 of an image."""


class Model:
    """A model that answers every third request with nothing at first. It is one of its own for sounds."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        if "content" in request:
            return {"embedding": {"values": [0.5]}, "tokenCount": "7"}
        prompt = request["contents"][0]["parts"][0]["text"]
        with self._lock:
            self._seen[prompt] += 1
            first = self._seen[prompt] == 1
        number = int("".join(char for char in prompt if char.isdecimal()) or 1)
        answer: dict[str, Any] = {
            "candidates": [{"content": {"parts": [{"text": "Blue."}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 11},
            "modelVersion": MODEL,
        }
        if number % 3 == 0 and first:
            answer["candidates"] = [{"content": {"parts": [{"text": " "}]}, "finishReason": "STOP"}]
        if "sound" in prompt:
            answer |= {"usageMetadata": BY_MODALITY, "modelVersion": HEARS}
        if "unknown" in prompt:
            answer["modelVersion"] = "gemini-7-unknown"
        return answer


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("costs")
    prices = directory / "prices.toml"
    prices.write_text(PRICES % (SAME, SAME, SAME))
    with Stack(directory, LOWTIDE_SEGMENT_ROWS="4", LOWTIDE_PRICES=str(prices)) as stack:
        stack.emulator.answer = Model()
        yield stack


@contextmanager
def working(stack: Stack) -> Iterator[None]:
    """Runs a worker meanwhile."""
    worker = stack.worker("-P", "solo")
    yield
    worker.kill()


def asks(what: str, count: int = 1) -> list[Request]:
    return [Request(key=f"k{number}", contents=f"{what} {number}") for number in range(1, count + 1)]


def reported(batch: Batch) -> int:
    """The paid cost of a batch that has ended; the costs of its results are checked on the way."""
    status = batch.wait(timeout=180)
    assert status.cost == sum(result.cost or 0 for result in batch.results())
    assert status.paid_cost is not None
    return status.paid_cost


def test_each_modality_has_its_price(stack: Stack) -> None:
    with working(stack):
        batch = stack.queue().submit(asks("sound"), model=HEARS)

        assert reported(batch) == COST_BY_MODALITY
    [result] = batch.results()
    assert result.modalities == {
        "prompt_token_count": {"TEXT": 30, "AUDIO": 70},
        "cached_content_token_count": {"AUDIO": 20},
        "candidates_token_count": {"IMAGE": 40},
    }
    [record] = [one for one in stack.emulator.jobs() if batch.id in one.display_name]
    assert bill(record.billed_tokens, PriceTable.read(str(stack.directory / "prices.toml"))) == COST_BY_MODALITY


def test_embeddings_are_priced_as_the_model_that_was_asked_for(stack: Stack) -> None:
    batch = stack.queue().submit(asks("text", 3), model="gemini-embedding-2", kind=Kind.EMBEDDING)

    with working(stack):
        assert reported(batch) == billed(stack.emulator.jobs(), [batch.id]) == 3 * 7 * 100


def test_a_model_without_a_price_costs_what_nobody_knows(stack: Stack) -> None:
    batch = stack.queue().submit(asks("unknown", 2), model=MODEL)
    with working(stack):
        status = batch.wait(timeout=180)

    assert (status.cost, status.paid_cost, status.unpriced) == (None, None, 2)
    assert [result.cost for result in batch.results()] == [None, None]


def test_rows_that_come_twice_or_belong_to_nobody_are_paid_as_they_are_billed(stack: Stack) -> None:
    faults = [("duplicate_rows", {"count": 9}), ("foreign_rows", {"count": 2}), ("shuffle", {})]
    stack.emulator.set_faults([{"on": "job", "kind": kind, "params": params, "times": 1} for kind, params in faults])
    batch = stack.queue().submit(asks("blue", 9), model=MODEL)
    with working(stack):
        paid = reported(batch)
    status = batch.status()

    assert (status.duplicates, status.quarantined) == (6, 2)
    assert paid == billed(stack.emulator.jobs(), [batch.id])


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_batches_that_share_a_job_have_the_cost_of_their_own_rows(stack: Stack, again: bool) -> None:
    """In one of the cases the output gets lost behind its first segment, so that all rows come once more."""
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=12)
    batches = [queue.submit(asks(f"{name} of {again}", 6), model=MODEL, labels={"team": name}) for name in ("a", "b")]
    bundle, lost = batches[0].status().bundle or "", stack.logs().count("collected again")
    if again:
        dying = stack.worker("-P", "solo", LOWTIDE_CRASH_AT="deliver.after-record")
        wait_until(lambda: dying.killed, what="the first segment counted")
        for file in (stack.directory / "spool" / "batches" / bundle / "jobs" / "1").glob("output*"):
            file.unlink()
    with working(stack):
        paid = [reported(batch) for batch in batches]

    assert paid == [8 * ONE] * 2
    assert sum(paid) == billed(stack.emulator.jobs(), [bundle])
    assert int(stack.redis.hget(keys.batch(bundle), "paid_cost") or 0) == sum(paid)
    assert (stack.logs().count("collected again") > lost) is again
