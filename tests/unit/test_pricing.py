"""The price table and the cost of a row: exact, unknown rather than wrong, and clear about a table that is no good."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import InvalidSettings, Usage
from lowtide.pricing import Details, InvalidPrices, Modality, PriceTable, Tier, cost
from lowtide.pricing.cost import DayPrices

OURS = PriceTable.read()
DAY = date(2026, 11, 27)
GOOD = 'model = "m", tiers = ["batch"], input = 1.5, cached = 0.15, output = 2, read = 2026-10-07, source = "page"'


def usage(prompt: int, cached: int = 0, candidates: int = 0, thoughts: int = 0, tools: int = 0) -> Usage:
    return Usage(
        prompt_token_count=prompt,
        cached_content_token_count=cached,
        candidates_token_count=candidates,
        thoughts_token_count=thoughts,
        tool_use_prompt_token_count=tools,
    )


def table(tmp_path: Path, *rows: str) -> PriceTable:
    file = tmp_path / "mine.toml"
    file.write_text("price = [\n" + "".join(f"  {{ {row} }},\n" for row in rows) + "]\n")
    return PriceTable.read(str(file))


@pytest.mark.parametrize(
    ("model", "tier", "spent", "nano"),
    [
        ("gemini-3.5-flash", Tier.BATCH, usage(1000, candidates=100), 1000 * 750 + 100 * 4500),
        ("models/gemini-3.5-flash-001", Tier.FLEX, usage(1000, candidates=100), 1000 * 750 + 100 * 4500),
        ("gemini-3.5-flash", Tier.STANDARD, usage(1000, candidates=100), 1000 * 1500 + 100 * 9000),
        ("gemini-3.5-flash", Tier.BATCH, usage(1000, 400, 7, 13, 50), 650 * 750 + 400 * 150 + 20 * 4500),
        ("gemini-3.1-pro-preview", Tier.BATCH, usage(200_000, candidates=1), 200_000 * 1000 + 6000),
        ("gemini-3.1-pro-preview", Tier.BATCH, usage(200_001, candidates=1), 200_001 * 2000 + 9000),
        ("gemini-embedding-2", Tier.BATCH, usage(9), 900),
        ("gemini-3.5-flash", Tier.BATCH, usage(0), 0),
    ],
    ids=["plain", "version", "standard", "cached-and-thoughts", "below-step", "above-step", "embedding", "nothing"],
)
def test_a_row_costs_its_tokens_by_the_table(model: str, tier: Tier, spent: Usage, nano: int) -> None:
    assert cost(OURS, model, spent, tier=tier, on=DAY) == nano


def test_a_row_that_reports_more_cached_tokens_than_its_prompt_has_costs_no_more_than_its_prompt() -> None:
    wrong, right = usage(5, 5_000_000, candidates=1), usage(5, 5, candidates=1)

    assert cost(OURS, "gemini-3.5-flash", wrong, tier=Tier.BATCH, on=DAY) == 5 * 150 + 4500
    prices = DayPrices(OURS, tier=Tier.BATCH, on=DAY)
    assert prices.costs("gemini-3.5-flash", [wrong, right]) == [5 * 150 + 4500] * 2


@pytest.mark.parametrize("model", ["gemini-9-flash", "tunedModels/mine", "", "gemini-3.5-flash-image"])
def test_an_unknown_model_costs_what_nobody_knows_and_never_nothing(model: str) -> None:
    assert cost(OURS, model, usage(1000), tier=Tier.BATCH, on=DAY) is None


def test_a_price_counts_from_its_first_day_to_the_day_before_its_end() -> None:
    days = [date(2026, 12, 31), date(2027, 1, 1)]

    assert [cost(OURS, "gemini-3.8-flash", usage(8), tier=Tier.BATCH, on=day) for day in days] == [3000, 6000]


def test_a_modality_has_its_own_price_and_the_rest_is_text(tmp_path: Path) -> None:
    audio = GOOD.replace("output = 2, ", "").replace("input = 1.5", 'modality = "audio", input = 5')
    mine = table(tmp_path, GOOD, audio)
    details = Details(
        prompt={Modality.TEXT: 1, Modality.AUDIO: 60, Modality.VIDEO: 20},
        cached={Modality.AUDIO: 10},
        candidates={Modality.AUDIO: 4},
    )

    spent = cost(mine, "m", usage(100, 10, 4), tier=Tier.BATCH, on=DAY, details=details)

    assert spent == 50 * 5000 + 10 * 150 + 40 * 1500 + 4 * 2000


def test_a_file_replaces_the_models_that_it_names_and_no_others(tmp_path: Path) -> None:
    mine = table(tmp_path, GOOD.replace('"m"', '"gemini-3.5-flash"'), GOOD.replace('"m"', '"gemini-*"'))

    spent = [
        cost(mine, model, usage(2), tier=tier, on=DAY)
        for model, tier in (
            ("gemini-3.5-flash", Tier.BATCH),
            ("gemini-3.5-flash", Tier.STANDARD),
            ("gemini-embedding-2", Tier.BATCH),
            ("gemini-9-flash", Tier.BATCH),
        )
    ]

    assert spent == [3000, None, 200, 3000]


def test_the_longest_beginning_counts(tmp_path: Path) -> None:
    longer = GOOD.replace('"m"', '"gemini-9-flash-*"').replace("input = 1.5", "input = 9")
    mine = table(tmp_path, GOOD.replace('"m"', '"gemini-*"'), longer)

    assert cost(mine, "gemini-9-flash-image", usage(1), tier=Tier.BATCH, on=DAY) == 9000
    assert cost(mine, "gemini-9-flash", usage(1), tier=Tier.BATCH, on=DAY) == 1500


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            GOOD.replace("output = 2, ", ""),
            r"LOWTIDE_PRICES, row 2 \(m\), output: the column is missing; write US dollars",
        ),
        (GOOD.replace("1.5", "-1.5"), r"row 2 \(m\), input: write US dollars for 1,000,000 tokens, from 0"),
        (GOOD.replace("1.5", "0.0000001"), "input: write US dollars .* at most 6 decimals"),
        (GOOD.replace("1.5", "nan"), "input: write"),
        (GOOD.replace("1.5", "true"), "input: write"),
        (GOOD.replace("1.5", '"1.5"'), "input: write"),
        (GOOD.replace('["batch"]', '["bulk"]'), "tiers: write batch or flex or standard"),
        (GOOD.replace('["batch"]', "[]"), "tiers: write a list"),
        (GOOD + ", above = -1", "above: write a whole number"),
        (GOOD + ", price = 1", "no column is called 'price'"),
        (GOOD + ', since = "2026-01-01"', "since: write a day without quotes"),
        (GOOD + ", since = 2026-01-02, until = 2026-01-02", "until: write a day after `since`"),
        (GOOD.replace('"m"', '"*"'), "model: write the name of a model"),
        (GOOD.replace('model = "m", ', ""), "row 2, model: the column is missing"),
        (GOOD, "rows 1 and 2 .* both count for text of the tier batch"),
        (GOOD.replace('"m"', '"models/M@001"'), r"rows 1 and 2 \(m\) both count"),
        (GOOD.replace('"m"', '"n"') + ", above = 9", r"row 2 \(n\): the tier batch has no row with the modality text"),
    ],
    ids=map(str, range(17)),
)
def test_a_row_that_cannot_be_used_is_named_with_its_column(row: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPrices, match=problem):
        table(tmp_path, GOOD, row)


@pytest.mark.parametrize(
    "text",
    ["", "price = 1", "price = [1]", "price = [{}", "other = []", "\0", "price = []", "# " + "x" * (1 << 20)],
    ids=["empty", "number", "row-of-numbers", "no-end", "other-array", "zero-byte", "no-rows", "too-long"],
)
def test_a_file_that_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)

    with pytest.raises(InvalidPrices, match="LOWTIDE_PRICES"):
        PriceTable.read(str(file))


@pytest.mark.parametrize("path", ["none.toml", ".", "a\0b"], ids=["missing", "folder", "no-path"])
def test_a_file_that_cannot_be_read_is_named_as_a_setting(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="LOWTIDE_PRICES"):
        PriceTable.read(str(tmp_path / path))


@given(*[st.integers(0, 10**7)] * 4, st.sampled_from(["0.000001", "0.0755", "0.375", "12.5"]))
def test_a_cost_is_exact_to_the_nano_dollar(prompt: int, cached: int, answer: int, thoughts: int, dollars: str) -> None:
    [ours] = OURS.find("gemini-3.5-flash", Tier.BATCH, DAY).values()
    price = ours._replace(model="m", input=int(Decimal(dollars) * 10**6))
    cached = min(cached, prompt)

    spent = cost(PriceTable([price]), "m", usage(prompt, cached, answer, thoughts), tier=Tier.BATCH, on=DAY)

    exact = (prompt - cached) * Decimal(dollars) + cached * Decimal("0.15") + (answer + thoughts) * Decimal("4.5")
    assert spent is not None
    assert abs(Decimal(spent) - exact * 1000) <= Decimal("0.5")
