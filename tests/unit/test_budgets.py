"""Budgets as settings, their periods, and amounts of money as text."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from tests.unit.test_options import checked

from lowtide import InvalidSettings, Settings
from lowtide.budgets import Period, dollars, exact_dollars, labels_under, parse_budgets
from lowtide.store.recording import lane_of

BUDGETS = {"team=catalog": {"day": 50, "month": "800.5"}, "tenant=a=b": {"month": 1}}


def test_budgets_are_read_from_json_in_whole_nano_dollars() -> None:
    read = Settings(_env_file=None, budgets=json.dumps(BUDGETS)).budgets

    assert read == {
        "team=catalog": {Period.DAY: 50 * 10**9, Period.MONTH: 8005 * 10**8},
        "tenant=a=b": {Period.MONTH: 10**9},
    }
    labels = {"team": "catalog", "tenant": "a", "n": "1"}
    assert labels_under(read, labels) == {"team": "catalog"}
    assert labels_under(read, {"tenant": "a=b"}) == {"tenant": "a=b"}
    assert labels_under({}, labels) == {}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("team=catalog:50", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("[]", "this is not an object of at most 500 budgets"),
        ({f"n={n}": {"day": 1} for n in range(501)}, "at most 500 budgets"),
        ({"catalog": {"day": 1}}, "'catalog': name a label and its value"),
        ({"=catalog": {"day": 1}}, "name a label and its value"),
        ({"team=\x1b[31m": {"day": 1}}, "name a label and its value"),
        ({"team=" + "x" * 2000: {"day": 1}}, "name a label and its value"),
        ({"team=a": 50}, "'team=a': give a day, a month, or both"),
        ({"team=a": {}}, "'team=a': give a day, a month, or both"),
        ({"team=a": {"week": 1}}, "'team=a': 'week' is no period; write day or month"),
        ({"team=a": {"day": -1}}, "'team=a', day: write US dollars above 0"),
        ({"team=a": {"day": True}}, "'team=a', day: write US dollars"),
        ({"team=a": {"month": "1e-10"}}, "'team=a', month: write US dollars .* at most 9 decimals"),
        ({"team=a": {"day": 2, "month": 1}}, "'team=a', day: more than for the whole month"),
    ],
    ids=map(str, range(15)),
)
def test_a_wrong_budget_is_named_with_the_setting_and_the_field(given: Any, problem: str) -> None:
    with pytest.raises(InvalidSettings, match=f"LOWTIDE_BUDGETS: .*{problem}") as caught:
        Settings(_env_file=None, budgets=given)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("today", "days", "next_day", "next_month"),
    [
        (date(2026, 1, 31), 31, date(2026, 2, 1), date(2026, 2, 1)),
        (date(2026, 12, 31), 31, date(2027, 1, 1), date(2027, 1, 1)),
        (date(2028, 2, 1), 29, date(2028, 2, 2), date(2028, 3, 1)),
    ],
    ids=["january", "december", "leap-year"],
)
def test_a_period_has_all_its_days_and_ends_with_the_next(
    today: date, days: int, next_day: date, next_month: date
) -> None:
    assert Period.DAY.days(today) == [today]
    assert Period.MONTH.days(today) == [today.replace(day=day) for day in range(1, days + 1)]
    assert Period.DAY.end(today) == datetime(*next_day.timetuple()[:3], tzinfo=UTC).timestamp()
    assert Period.MONTH.end(today) == datetime(*next_month.timetuple()[:3], tzinfo=UTC).timestamp()


def test_amounts_are_shown_with_as_many_digits_as_matter() -> None:
    shown = [dollars(nano) for nano in (0, 1, 75_000, 10**9, 1_234_567_890_000)]

    assert shown == ["$0.00", "$0.000001", "$0.000075", "$1.00", "$1,234.57"]


def test_errors_compare_exact_amounts() -> None:
    shown = [exact_dollars(nano) for nano in (0, 1, 750, 75_000, 10**9, 10**7, 1_234_567_890_000)]

    assert shown == ["$0.00", "$0.000000001", "$0.00000075", "$0.000075", "$1.00", "$0.01", "$1,234.56789"]


def test_batches_share_jobs_only_under_the_same_budgets_and_never_with_a_max_cost() -> None:
    settings = Settings(_env_file=None, budgets=json.dumps(BUDGETS))
    given: list[dict[str, Any]] = [{"labels": {"team": team, "n": team}} for team in ("catalog", "search", "ads")]

    catalog, search, ads = (lane_of(checked(share=True, **one), settings, total=1, sources=()) for one in given)

    assert search == ads != catalog
    assert "" not in (search, catalog)
    assert lane_of(checked(share=True, max_cost=1), settings, total=1, sources=()) == ""
    assert parse_budgets({}) == {}
