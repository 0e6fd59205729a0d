"""Options of a batch: of any type and size, they are taken as they are meant or refused by their name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.unit.bodies import shaped

from lowtide import AsyncBatchQueue, BatchOptions, BatchQueue, InvalidBatch, InvalidRequest, Settings
from lowtide.intake import cloud_uris
from lowtide.limits import (
    MAX_ATTEMPTS,
    MAX_COLUMN_CHARS,
    MAX_DEADLINE_SECONDS,
    MAX_HANDLER_CHARS,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_KEY_BYTES,
    MAX_LABEL_NAME_CHARS,
    MAX_LABEL_VALUE_CHARS,
    MAX_LABELS,
    MAX_METADATA_BYTES,
    MAX_MODEL_CHARS,
    MAX_OUTCOME_CHARS,
    MAX_OUTCOMES,
    MAX_PRIORITY,
)
from lowtide.options import Options
from lowtide.store.recording import lane_of

SETTINGS = Settings(_env_file=None)
NAMES = (
    "model",
    "on_result",
    "on_finished",
    "on_progress",
    "idempotency_key",
    "labels",
    "mode",
    "max_attempts",
    "max_cost",
    "over_budget",
    "priority",
    "deadline",
    "outcomes",
    "provider",
    "kind",
    "destination",
    "key_column",
    "share",
    "key_field",
)
NO_TEXT: list[Any] = [True, 0, 1, 1.5, b"text", ["a"], {"a": "b"}, ..., str]
NO_NUMBER: list[Any] = [True, False, 1.5, 2.0, "2", None.__class__, [1], float("nan"), float("inf")]
NO_MAPPING: list[Any] = ["a=b", [("a", "b")], 5, True, {1: "b"}, {"a": 5}, {"a": None}, {"": "b"}, {"a\ud800": "b"}]

REFUSED: dict[str, list[Any]] = {
    "model": [
        *NO_TEXT,
        None,
        "",
        " ",
        "gemini-3.5-flash\n",
        "gemini 2.5",
        "\x00",
        "a\x1b[31m",
        "é",
        "a\ud800",
        "../files/x",
        "models/../x",
        "/x",
        "x/",
        "a//b",
        "a?key=b",
        "a%2e",
        "gpt-4o",
        "publishers/anthropic/models/claude-sonnet-4-5",
        f"publishers/{'x' * (MAX_MODEL_CHARS - 20)}",
        "x" * (MAX_MODEL_CHARS + 1),
        "x" * (1 << 20),
    ],
    "on_result": [*NO_TEXT, "", "shop.take\n", "shop take", "s" * (MAX_HANDLER_CHARS + 1), "stream://a\x00"],
    "on_finished": [*NO_TEXT, "", "shop.take\n", "ftp://x", "s" * (MAX_HANDLER_CHARS + 1), "stream://a\x00"],
    "on_progress": [*NO_TEXT, "", "shop.take\n", "ftp://x", "s" * (MAX_HANDLER_CHARS + 1), "stream://a\x00"],
    "idempotency_key": [*NO_TEXT, "", "k\ud800", "k" * (MAX_IDEMPOTENCY_KEY_CHARS + 1)],
    "labels": [
        {"a=b": "c"},
        *NO_MAPPING,
        {f"l{n}": "" for n in range(MAX_LABELS + 1)},
        {"n" * (MAX_LABEL_NAME_CHARS + 1): ""},
        {"n": "v" * (MAX_LABEL_VALUE_CHARS + 1)},
        {"n": "\udfff"},
    ],
    "mode": [*NO_TEXT, "", "FILE", "file\n", "carrier-pigeon", "x" * 1000],
    "max_attempts": [*NO_NUMBER, 0, -1, MAX_ATTEMPTS + 1, 1 << 70],
    "max_cost": [
        *[True, False, 0, -1, "", "0", "$5", "1,5", "1e7", "NaN", "Infinity", float("nan"), float("inf"), b"1", [1]],
        *["0.0000000001", 1_000_000.5, Decimal("1e-10"), Decimal("sNaN"), 10**400, "9" * 100_000, "٣e9999999999"],
    ],
    "over_budget": [*NO_TEXT, None, "", "FAIL", "stop"],
    "priority": [*NO_NUMBER, None, MAX_PRIORITY + 1, -MAX_PRIORITY - 1],
    "deadline": [
        *[True, float("nan"), float("inf"), 0, 0.5, -1, MAX_DEADLINE_SECONDS + 1, 1 << 70, 10**400],
        *["", "tomorrow", "3600", "2099-01-01", "2026-12-24T18:00:00", "2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z"],
        *[datetime(2099, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), date(2099, 1, 1), timedelta(hours=1), b"1", [1]],  # noqa: DTZ001 - it must be refused
    ],
    "outcomes": [
        *NO_MAPPING,
        {"SAFETY": "maybe"},
        {"SAFETY": ["fail"]},
        {"SAFETY": True},
        {"r" * (MAX_OUTCOME_CHARS + 1): "fail"},
        {f"R{n}": "fail" for n in range(MAX_OUTCOMES + 1)},
    ],
    "provider": [*NO_TEXT, "", "openai", "gemini\n"],
    "kind": [*NO_TEXT, None, "", "image"],
    "destination": [
        *NO_TEXT,
        "",
        "gs://bucket/x",
        "projects/p/locations/us/datasets/1",
        "ftp://x",
        "gs://" + "b" * 3000,
    ],
    "key_column": [*NO_TEXT, None, "", " ", "a\nb", "c" * (MAX_COLUMN_CHARS + 1)],
    "share": ["yes", 0, 1, 1.5, [], {}],
    "key_field": [*NO_TEXT, "", " ", ".id", "a..b", "c" * (MAX_COLUMN_CHARS + 1)],
}


def checked(**options: Any) -> Options:
    return Options.checked(SETTINGS, **({"model": "gemini-3.5-flash"} | options))


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in REFUSED.items() for value in values],
    ids=lambda given: repr(given)[:40] if not isinstance(given, str) or len(given) > 40 else ascii(given),
)
def test_an_option_that_cannot_be_used_is_refused_by_its_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidBatch) as caught:
        checked(**{option: value})

    assert str(caught.value).startswith(option)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("given", ["0.1", 0.1, Decimal("0.1"), "1e-1"], ids=["text", "float", "decimal", "exponent"])
def test_an_amount_of_money_is_exact(given: Any) -> None:
    assert checked(max_cost=given).max_cost == 100_000_000


def test_every_option_is_in_the_table() -> None:
    assert set(REFUSED) == set(NAMES) == set(Options.__dataclass_fields__) == {"model", *BatchOptions.__annotations__}


@pytest.mark.parametrize(
    ("wrong", "right"), [("on_reslt", "on_result"), ("prioriy", "priority"), ("destinaton", "destination")]
)
def test_an_option_that_does_not_exist_is_refused_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=f"no option '{wrong}': did you mean '{right}'"):
        BatchQueue(SETTINGS).submit([], **{"model": "m", wrong: "x"})  # type: ignore[arg-type]


def test_an_option_like_no_other_is_refused_with_the_list_of_them() -> None:
    with pytest.raises(TypeError, match=r"no option 'xyz': the options are model, on_result, .*, key_field"):
        checked(xyz=1)


def test_an_async_submit_refuses_a_wrong_option_before_it_asks_for_requests() -> None:
    async def requests() -> AsyncIterator[dict[str, object]]:
        pytest.fail("it was asked")
        yield {}

    with pytest.raises(TypeError, match="no option 'lables': did you mean 'labels'"):
        asyncio.run(AsyncBatchQueue(SETTINGS).submit(requests(), model="m", lables={}))  # type: ignore[call-arg]


@hypothesis_settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(NAMES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_anything_is_either_an_option_of_the_right_type_or_refused(option: str, value: Any) -> None:
    try:
        options = checked(**{option: value})
    except InvalidBatch:
        return
    assert type(options.max_attempts) is int
    assert 1 <= options.max_attempts <= MAX_ATTEMPTS
    assert type(options.priority) is int
    assert abs(options.priority) <= MAX_PRIORITY
    assert isinstance(options.labels, Mapping)
    for text in (options.model, options.key_column, *options.labels, *options.labels.values(), *options.outcomes):
        text.encode()


def test_a_deadline_is_seconds_or_a_moment() -> None:
    moment = datetime.now(UTC) + timedelta(days=2)

    assert checked(deadline=60).deadline == 60.0
    assert checked(deadline=moment.astimezone(timezone(timedelta(hours=5)))).deadline == moment
    assert checked(deadline=moment.isoformat()).deadline == moment
    assert checked().deadline is None


def test_only_batches_of_one_deadline_share_jobs() -> None:
    moment = datetime.now(UTC) + timedelta(days=2)
    deadlines: list[Any] = [None, 3600, 3601, moment, moment + timedelta(seconds=1)]

    lanes = [lane_of(checked(deadline=one, share=True), SETTINGS, total=1, sources=()) for one in deadlines * 2]

    assert len(set(lanes)) == len(deadlines)
    assert all(lanes)


def test_what_is_at_its_limit_is_taken() -> None:
    options = checked(
        model="projects/p-1/locations/us-central1/publishers/google/models/gemini-3.5-flash@001:tuned".ljust(256, "x"),
        provider="vertex",
        idempotency_key="k" * MAX_IDEMPOTENCY_KEY_CHARS,
        labels={f"l{n}".ljust(MAX_LABEL_NAME_CHARS, "n"): "v" * MAX_LABEL_VALUE_CHARS for n in range(MAX_LABELS)},
        max_attempts=MAX_ATTEMPTS,
        priority=-MAX_PRIORITY,
        outcomes={"SAFETY": "retry"},
    )

    assert (options.max_attempts, options.priority, len(options.labels)) == (MAX_ATTEMPTS, -MAX_PRIORITY, MAX_LABELS)


@pytest.mark.parametrize("given", [None, 5, 1.5, True, ..., str])
def test_requests_that_are_no_requests_at_all_are_refused(given: object) -> None:
    with pytest.raises(InvalidBatch, match="requests: expected an iterable or a path"):
        cloud_uris(given)


def test_a_list_of_places_holds_places_only() -> None:
    for last in (5, None, "gs://" + "b" * 3000):
        with pytest.raises(InvalidBatch, match="requests"):
            cloud_uris(["gs://bucket/a.jsonl", last])


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"key": "k" * (MAX_KEY_BYTES + 1)}, "key"),
        ({"key": "é" * (MAX_KEY_BYTES // 2 + 1)}, "key"),
        ({"key": "k", "metadata": {"a": "v" * MAX_METADATA_BYTES}}, "metadata"),
        ({"key": "k", "metadata": {str(n): "v" * 99 for n in range(1000)}}, "metadata"),
        ({"key": "k", "metadata": {"n" * (1 << 20): 5}}, "metadata." + "n" * 191),
    ],
)
def test_a_key_and_metadata_have_limits(line: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shaped({"contents": "a", **line}, model="m")

    assert caught.value.field == field


def test_a_key_and_metadata_may_be_as_large_as_their_limits() -> None:
    metadata = {"a": "v" * (MAX_METADATA_BYTES - 1)}
    done = shaped({"key": "é" * (MAX_KEY_BYTES // 2), "contents": "a", "metadata": metadata}, model="m")

    assert done.metadata == metadata


def test_an_option_that_singles_have_not_names_what_limits_them() -> None:
    wrong: Any = {"max_cost": 3}
    with pytest.raises(TypeError, match=r"add has no option 'max_cost': limit the costs .* by LOWTIDE_BUDGETS"):
        BatchQueue(SETTINGS).add({"contents": "x"}, model="gemini-3.5-flash", **wrong)


def test_an_option_like_none_of_singles_is_refused_with_the_list_and_a_key_for_many_with_its_place() -> None:
    wrong: Any = {"on_finished": "shop.done"}
    with pytest.raises(TypeError, match=r"add has no option 'on_finished': the options are model, key, on_result, "):
        BatchQueue(SETTINGS).add({"contents": "x"}, model="gemini-3.5-flash", **wrong)
    wrong = {"key": "a"}
    with pytest.raises(TypeError, match=r"no option 'key': write it into each request"):
        BatchQueue(SETTINGS).add_many([{"contents": "x"}], model="gemini-3.5-flash", **wrong)
