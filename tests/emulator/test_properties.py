"""Properties that hold for any input."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide_emulator.answering import sample
from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine.output import _chosen
from lowtide_emulator.gemini.intake import RowChecker, RowKind
from lowtide_emulator.wire import snake, timestamp

PARAMETERS = {
    "candidateCount": 1,
    "maxOutputTokens": 5,
    "responseMimeType": "text/plain",
    "responseModalities": ["TEXT"],
    "stopSequences": ["x"],
    "thinkingConfig": {"include_thoughts": True},
    "topK": 2,
    "topP": 0.5,
}
CHECKER = RowChecker(RowKind(embeddings=False, count_tokens=True), inline=False)


@given(parameters=st.dictionaries(st.sampled_from(sorted(PARAMETERS)), st.booleans()), outer=st.booleans())
def test_any_mix_of_letter_cases_is_a_good_row(parameters: dict[str, bool], outer: bool) -> None:
    config = {snake(name) if snaked else name: PARAMETERS[name] for name, snaked in parameters.items()}
    name = snake("generationConfig") if outer else "generationConfig"
    row = {"key": "k", "request": {"contents": [], name: config}}
    assert CHECKER.key(json.dumps(row).encode(), 1) == "k"


def test_a_thread_that_uses_random_disturbs_no_property() -> None:
    over = Event()

    def draw() -> None:
        while not over.wait(0.0001):
            random.random()

    thread = Thread(target=draw)
    thread.start()
    try:
        test_any_mix_of_letter_cases_is_a_good_row()
    finally:
        over.set()
        thread.join()


@given(st.text(min_size=1).filter(lambda name: name not in {"key", "request"}))
def test_any_unknown_field_is_named(name: str) -> None:
    row = json.dumps({"key": "k", "request": {}, name: 1}, ensure_ascii=False)
    try:
        data = row.encode()
    except UnicodeEncodeError:
        return
    with pytest.raises(RefusalError, match="line 1"):
        CHECKER.key(data, 1)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_checker(data: bytes) -> None:
    for embeddings in (True, False):
        for inline in (True, False):
            with suppress(RefusalError):
                RowChecker(RowKind(embeddings=embeddings, count_tokens=True), inline=inline).key(data, 1)


@given(st.integers(1, 500), st.floats(0, 1))
def test_exactly_as_many_rows_are_chosen_as_asked(total: int, share: float) -> None:
    count = round(share * total)
    assert sum(_chosen(index, count, total) for index in range(total)) == count


@given(st.floats(0, 4e9))
def test_times_have_nine_decimals(seconds: float) -> None:
    text = timestamp(seconds)
    assert len(text) == len("2026-01-01T00:00:00.000000000Z")
    assert text.endswith("Z")


@given(st.text(max_size=50), st.integers(1, 5))
def test_a_sample_fits_a_nested_schema(text: str, least: int) -> None:
    schema: dict[str, object] = {
        "type": "ARRAY",
        "min_items": least,
        "items": {"type": "OBJECT", "properties": {"score": {"type": "NUMBER", "maximum": 2}}},
    }
    value = sample(schema, text)
    assert isinstance(value, list)
    assert len(value) == least
    assert all(item["score"] <= 2 for item in value)
