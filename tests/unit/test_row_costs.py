"""The cost of a row: by the model that answered and its modalities, and unknown rather than wrong."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.records import a_batch, a_job, held_job

from lowtide import InvalidSettings, ResultStatus
from lowtide.models import ResultError
from lowtide.pricing import Modality, PriceTable, Tier
from lowtide.protocol import Stage
from lowtide.protocol.daily_costs import CostDimension
from lowtide.spool import KeyLine, Spool
from lowtide_worker.output import Joined, Row, RowCosts, judge, rest_rows, tally
from lowtide_worker.output.joining import RestRow
from lowtide_worker.partial_answers import PartialAnswers, continued, write_partial_answers
from lowtide_worker.providers import OutputRow
from lowtide_worker.runtime import Runtime
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.stages.tallies import DecidedRows, tally_of
from lowtide_worker.state import BundledBatch, Granted

FLASH, PRO = "gemini-3.5-flash", "gemini-3.1-pro-preview"
DAY = date(2026, 11, 27)
MOST = (1 << 31) - 1


def answer(usage: object, finish: str = "STOP", **more: object) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": "Blue."}]}, "finishReason": finish, **more}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": FLASH}


def joined(response: object, error: ResultError | None = None, model: str = FLASH, day: date = DAY) -> Joined:
    raw = msgspec.Raw(json.dumps(response).encode())
    row = OutputRow("r0", raw, error)
    outcome = judge(row)
    return Joined(
        0, KeyLine("r0", "key"), raw, outcome, RowCosts(PriceTable.read(), model, day).costs([row], [outcome])[0]
    )


@pytest.mark.parametrize(
    ("response", "cost"),
    [
        (answer({"promptTokenCount": 100, "candidatesTokenCount": 10}), 100 * 750 + 10 * 4500),
        (answer({"promptTokenCount": "100", "thoughtsTokenCount": 10}), 100 * 750 + 10 * 4500),
        (answer({"promptTokenCount": 100, "cachedContentTokenCount": 40}), 60 * 750 + 40 * 150),
        (answer({"promptTokenCount": 100}, "SAFETY"), 100 * 750),
        (answer({"promptTokenCount": 100, "promptTokensDetails": {"odd": 1}}), 100 * 750),
        (answer({}), 0),
        ({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}, 4 * 750),
        (answer({"promptTokenCount": 100}) | {"modelVersion": f"{FLASH}-lite-001"}, 100 * 150),
        (answer({"promptTokenCount": 100}) | {"modelVersion": None}, 100 * 750),
        (answer({"promptTokenCount": 100}) | {"modelVersion": "gemini-7"}, None),
        (answer(None), None),
        (answer({"promptTokenCount": -1}), None),
        (answer({"promptTokenCount": MOST, "candidatesTokenCount": MOST}), None),
        ({"candidates": 5, "usageMetadata": {"promptTokenCount": 4}}, None),
        ({}, None),
        (None, 0),
    ],
    ids=[
        *("plain", "thoughts", "cached", "withheld", "odd details", "no tokens", "blocked", "another model"),
        *("no model", "unknown model", "no usage", "odd usage", "more than any row costs", "unreadable", "empty"),
        "no response",
    ],
)
def test_a_row_has_its_price_or_an_unknown_one(response: object, cost: int | None) -> None:
    assert joined(response).cost == cost


def test_a_failed_row_without_a_response_is_not_billed() -> None:
    assert joined(None, ResultError(reason="INTERNAL", message="x", code=13)).cost == 0


def test_the_prices_are_those_of_the_day_on_which_the_job_ended() -> None:
    response = answer({"promptTokenCount": 8}) | {"modelVersion": "gemini-3.8-flash"}
    days = [date(2026, 12, 31), date(2027, 1, 1)]

    assert [joined(response, day=day).cost for day in days] == [8 * 375, 8 * 750]


def test_details_of_modalities_count_where_the_model_has_a_price_for_them() -> None:
    usage = {
        "promptTokenCount": 100,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 60}, {"modality": "DOCUMENT", "tokenCount": 30}],
        "cachedContentTokenCount": 20,
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": "20"}, {}],
    }
    response = answer(usage) | {"modelVersion": "gemini-2.5-flash"}

    assert joined(response).cost == 40 * 500 + 20 * 100 + 40 * 150


def test_each_part_of_an_answer_is_priced_by_itself(tmp_path: Path) -> None:
    """Together, the parts are above the step of 200,000 tokens, which makes each token dearer."""
    spool = Spool(str(tmp_path))
    usage = {"promptTokenCount": 150_000}
    first = joined(answer(usage, "CONTINUATION", continuationToken="Zmlyc3Q=") | {"modelVersion": PRO})
    digest = write_partial_answers(spool, "b0costs", 1, 0, [first])
    begun = PartialAnswers.of_segments(spool, "b0costs", 1, {0: digest})

    [whole] = continued([joined(answer(usage) | {"modelVersion": PRO})], begun, {})

    assert whole.usage is not None
    assert whole.usage.prompt_token_count == 300_000
    assert (whole.cost, whole.whole_cost) == (150_000_000, 300_000_000)
    counted = tally([whole], [whole], {})
    assert (counted.counts["cost"], counted.paid["cost"]) == (300_000_000, 150_000_000)


def test_rows_without_a_price_or_without_tokens_are_not_those_that_the_cost_is_of() -> None:
    unknown = answer({"promptTokenCount": 4}) | {"modelVersion": "gemini-7"}
    rows = [joined(one) for one in (answer({"promptTokenCount": 4}), unknown, {}, None)]

    paid = tally(rows, rows, {}).paid

    assert (paid["rows"], paid["priced_rows"], paid["unpriced"], paid["cost"]) == (2, 1, 2, 4 * 750)


def test_every_paid_row_of_a_bundle_counts_for_the_budget_of_its_label() -> None:
    paid = answer({"promptTokenCount": 4})
    rows = [replace(joined(paid), ordinal=ordinal) for ordinal in (0, 1)]
    stranger = Row("x0", msgspec.Raw(b"null"), rows[0].outcome, 4 * 750)
    shares = [BundledBatch("b0there", 0, 1, {"team": "a", "n": "1"}), BundledBatch("b0deleted", 1, 2, {})]

    counted = tally_of(
        DecidedRows.of(rows, [], [stranger], Granted(results=b"11", counted=b"111")),
        a_batch("b0bundle", labels={"team": "a"}),
        quarantined=1,
        day=DAY,
        batches=shares,
        ranges={},
        budgets={"team=a"},
        places=[],
    )

    labels = [one for one in counted.daily if one.dimension is CostDimension.LABEL]
    assert sum(one.amounts.cost for one in labels if one.name == "team=a") == 3 * 4 * 750 == counted.paid["cost"]
    assert [one.amounts.cost for one in labels if one.name == "n=1"] == [4 * 750]


@pytest.mark.parametrize("earlier", [7, None])
def test_a_request_without_a_row_costs_what_its_earlier_jobs_did(earlier: int | None) -> None:
    error = ResultError(reason="CANCELLED", message="x")
    row = RestRow("r0", ResultStatus.CANCELLED, error, earlier_cost=earlier)
    [read] = rest_rows(msgspec.json.encode(row) + b"\n")

    assert replace(joined(None), cost=read.cost, earlier_cost=read.earlier_cost).whole_cost == earlier


def test_a_price_table_that_is_replaced_counts_from_the_next_start_of_a_worker(tmp_path: Path) -> None:
    """Everywhere in the process: the price of a row, and that by which a budget is kept."""
    table = tmp_path / "prices.toml"
    columns = 'tiers = ["batch"], cached = 1, output = 1, read = 2026-11-01, source = "the tests"'
    table.write_text(f'price = [{{ model = "{FLASH}", input = 2, {columns} }}]')
    settings = WorkerSettings(_env_file=None, GOOGLE_API_KEY="k", prices=str(table))
    runtime = Runtime(settings)
    batch = a_batch("b0prices", model=FLASH, total=1, tokens=10, output_tokens=0)
    job = held_job(a_job("b0prices-1"), batch, Stage.CREATE)

    table.write_text("nonsense")

    assert runtime.prices.find(FLASH, Tier.BATCH, DAY)[Modality.TEXT].input == 2_000_000
    assert runtime.admission.price(job) == (2_000_000, 1_000_000)


def test_a_worker_with_a_bad_price_table_does_not_start(tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text("price = [{ model = 'm' }]")
    settings = WorkerSettings(_env_file=None, GOOGLE_API_KEY="k", prices=str(table))

    with pytest.raises(InvalidSettings, match=r"LOWTIDE_PRICES, row 1 \(m\), tiers: the column is missing"):
        Runtime(settings)
