"""Estimates: the numbers that `submit` would come to, with nothing stored or sent, and each bad request named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_pricing import GOOD

from lowtide import BatchQueue, InvalidBatch, Request, Settings
from lowtide.estimates import estimate
from lowtide.pricing import InvalidPrices
from lowtide.protocol import Quota
from lowtide.shaping import shaper_of
from lowtide.spool import RequestWriter, Spool
from lowtide.states import Kind, ProviderName

MODEL = "gemini-3.5-flash"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Neither Redis nor the spool is there."""
    return Settings(_env_file=None, redis_url="redis://127.0.0.1:9/0", spool_url=str(tmp_path / "spool"))


def requests(count: int, output: int | None = 100) -> list[Request]:
    config: dict[str, Any] = {} if output is None else {"max_output_tokens": output}
    return [Request(key=f"k{n}", contents=f"Describe article {n} of many.", config=config) for n in range(count)]


def test_an_estimate_has_the_numbers_of_a_submit_and_leaves_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    found = estimate(requests(50), model=MODEL, settings=settings)

    assert not Path(settings.spool_url).exists()
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION)
    with RequestWriter(Spool(str(tmp_path / "other")), "b0other", shaper, max_request_bytes=10**9) as writer:
        for request in requests(50):
            writer.add(request)
        accepted = writer.finish()
    numbers = found.requests, found.bytes, found.input_tokens, found.output_tokens, found.jobs
    assert numbers == (50, accepted.bytes, accepted.tokens, 5000, 1)
    assert found.lowest_cost == accepted.tokens * 750
    assert found.highest_cost == accepted.tokens * 750 + 5000 * 4500
    assert found.held_cost == found.highest_cost
    assert (found.refused, found.quota_tier) == (0, "tier-1")


def test_jobs_are_counted_by_their_limits(settings: Settings) -> None:
    by_number = settings.model_copy(update={"max_requests_per_job": 20})
    size = estimate(requests(1), model=MODEL, settings=settings).bytes
    by_bytes = settings.model_copy(update={"max_bytes_per_job": size * 3 + 2})

    assert estimate(requests(50), model=MODEL, settings=by_number).jobs == 3
    assert estimate(requests(9), model=MODEL, settings=by_bytes).jobs == 3


def test_what_nobody_knows_is_none_and_not_zero(settings: Settings) -> None:
    unbounded = estimate([*requests(1), Request(key="x", contents="x")], model=MODEL, settings=settings)
    unpriced = estimate(requests(1), model="gemini-9-flash", settings=settings)
    embedded = estimate(
        [{"key": "a", "contents": "x"}], model="gemini-embedding-2", kind="embedding", settings=settings
    )

    assert (unbounded.output_tokens, unbounded.highest_cost, unbounded.lowest_cost is None) == (None, None, False)
    assert unbounded.held_cost == (unbounded.lowest_cost or 0) + (100 + 2000) * 4500
    assert (unpriced.lowest_cost, unpriced.highest_cost, unpriced.quota_tier) == (None, None, None)
    assert unpriced.held_cost is None
    assert (embedded.output_tokens, embedded.highest_cost) == (0, embedded.lowest_cost)


def test_each_bad_request_is_named_and_stops_no_other(settings: Settings) -> None:
    lines = [
        '{"key": "a", "contents": "x"}',
        "not JSON",
        "",
        '{"key": "a", "contents": "x"}',
        '{"key": "b"}',
        '{"key": "c", "contents": "\\ud800"}',
        "[" * 100_000,
        '{"key": "d", "contents": "x"}',
    ]

    found = estimate(io.BytesIO("\n".join(lines).encode()), model=MODEL, settings=settings)

    assert (found.requests, found.refused) == (2, 5)
    assert [problem.split(",")[0].split(" (")[0] for problem in found.problems] == [
        f"request {n}" for n in (2, 4, 5, 6, 7)
    ]
    assert [name for name in "ab" if f'(key "{name}")' in "".join(found.problems)] == ["a", "b"]
    unshown = estimate([{"key": "\ud800", "contents": "x"}], model=MODEL, settings=settings, key_field="id")
    assert unshown.problems == ["request 1, id: missing, and key_field names it"]
    many = estimate([{"key": "a"}] * 50, model=MODEL, settings=settings)
    assert (many.requests, many.refused, len(many.problems), many.jobs) == (0, 50, 20, 0)


@pytest.mark.parametrize(
    "given", [[], "none.jsonl", io.BytesIO(b"\n\n"), "a\0b"], ids=["none", "no-file", "blank", "path"]
)
def test_without_requests_there_is_an_error(given: Any, settings: Settings) -> None:
    with pytest.raises(InvalidBatch):
        estimate(given, model=MODEL, settings=settings)


def test_prices_of_a_file_are_used_and_a_wrong_file_is_an_error(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    mine = settings.model_copy(update={"prices": str(file)})
    file.write_text(f"price = [{{ {GOOD} }}]".replace('"m"', f'"{MODEL}"'))
    found = estimate(requests(1), model=MODEL, settings=mine)
    assert found.lowest_cost == found.input_tokens * 1500

    file.write_text(f"price = [{{ {GOOD} }}]".replace("1.5", "-1.5"))
    with pytest.raises(InvalidPrices, match="row 1"):
        estimate(requests(1), model=MODEL, settings=mine)


def test_tokens_are_corrected_by_what_the_answers_of_the_model_have_reported(settings: Settings) -> None:
    plain = estimate(requests(50), model=MODEL, settings=settings)
    seen = Quota(estimated=990_000, reported=1_990_000, configured=10)

    found = estimate(requests(50), model=MODEL, settings=settings, quota=seen)

    assert (plain.token_ratio, plain.token_limit) == (None, None)
    assert (found.token_ratio, found.token_limit) == (2.0, 10)
    assert found.input_tokens == 2 * plain.input_tokens
    assert plain.lowest_cost is not None
    assert found.lowest_cost == 2 * plain.lowest_cost


def test_a_queue_estimates_by_its_own_settings(settings: Settings) -> None:
    queue = BatchQueue(settings.model_copy(update={"max_requests_per_job": 2}))

    found = queue.estimate(requests(5), model=MODEL)
    assert (found.jobs, found.token_ratio) == (3, None)
    with pytest.raises(InvalidBatch, match="no places in Google Cloud"):
        queue.estimate("gs://bucket/requests.jsonl", model=MODEL, provider="vertex")


def test_a_file_is_read_by_its_path(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(json.dumps({"id": n, "contents": "x"}) + "\n" for n in range(3)))

    assert estimate(str(file), model=MODEL, settings=settings, key_field="id").requests == 3
    assert estimate(file, model=MODEL, settings=settings).refused == 3
