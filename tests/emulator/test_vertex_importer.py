"""Lines that the importer loads, and lines that fail the whole job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from google.cloud.storage import Bucket
from hypothesis import given
from hypothesis import strategies as st
from tests.emulator.helpers import prompt
from tests.emulator.vertex import World, lines, row, rows

from lowtide_emulator import Emulator
from lowtide_emulator.vertex.importer import MAX_DEPTH, ImportRefused, Schema, filled


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(depth):
        value = {"in": value}
    return value


def load(*found: Any) -> Schema:
    schema = Schema()
    for one in found:
        schema.add(one)
    return schema


@pytest.mark.parametrize(
    "found",
    [
        ({"a": 1}, {"a": 2.5}, {"a": 3}),
        ({"a": []}, {"a": ["x"]}, {}),
        ({"a": {"b": True}}, {"a": {"c": "x"}}),
        ({"tools": [{"google_search": {"timeRangeFilter": None}}]}, {"tools": []}),
        (
            {"tools": [{"googleSearch": {"timeRangeFilter": None}}]},
            {"tools": [{"googleSearch": {"timeRangeFilter": {"startTime": "x"}}}]},
        ),
        ({"_a1": 1, "b" * 300: 1},),
        (nested(MAX_DEPTH),),
    ],
)
def test_one_type_a_key_is_taken(found: tuple[Any, ...]) -> None:
    load(*found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (({"a": 1}, {"a": "x"}), "Could not convert value to integer. Field: a"),
        (({"a": True}, {"a": 1}), "Field: a"),
        (({"r": {"a": 1}}, {"r": {"a": {"b": 1}}}), "Field: r.a"),
        (({"a": {"b": 1}}, {"a": [{"b": 1}]}), "Array specified for non-repeated field: a"),
        (({"a": [1]}, {"a": 1}), "Expected an array for repeated field: a"),
        (({"a": [1, "x"]},), "Field: a"),
        (({"a": [[1]]},), "Nested arrays"),
        (({"tools": [{"google_search": {}}]},), "Unsupported empty struct type for field 'tools.google_search'"),
        (({"r": {"a": None}},), "null is not allowed: field r.a"),
        (({"a": [None]},), "null is not allowed: field a"),
        (({"r": {"$defs": 1}},), 'Invalid field name "r.$defs"'),
        (({"my-key": 1},), "my-key"),
        (({"1st": 1},), "1st"),
        (({"": 1},), "Invalid field name"),
        (({"a" * 301: 1},), "Invalid field name"),
        ((nested(MAX_DEPTH + 1),), "more than 15 levels"),
        (({f"c{index}": 1 for index in range(10_001)},), "Too many columns"),
    ],
)
def test_anything_else_is_refused_with_the_field(found: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ImportRefused) as caught:
        load(*found)
    assert words in str(caught.value)


values = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=3), min_size=1, max_size=4))
def test_what_is_taken_comes_back_with_nothing_but_nulls_added(found: list[dict[str, Any]]) -> None:
    try:
        schema = load(*found)
    except ImportRefused:
        return

    def without_nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_nulls(inner) for name, inner in value.items() if inner not in (None, [])}
        if isinstance(value, list):
            return [without_nulls(inner) for inner in value]
        return value

    whole = [filled(one, schema.root) for one in found]
    assert [without_nulls(one) for one in whole] == [without_nulls(one) for one in found]
    assert schema.root.ragged or whole == found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lines([*rows(2), row("k", "a", tools=[{"google_search": {}}])]), "line 3: Unsupported empty struct"),
        (lines(rows(1)) + b"{not json\n", "line 2"),
        (b"[1]\n", "line 1"),
        (b'{"key":"k"}\n', "'request'"),
        (b"\n\n", "there are no rows"),
        (b"", "there are no rows"),
        (lines([{"key": 1, "request": prompt("a")}, row("k", "b")]), "Field: key"),
    ],
)
def test_one_bad_line_fails_the_whole_job(world: World, data: bytes, words: str) -> None:
    job = world.run(data)
    assert job["state"] == "JOB_STATE_FAILED"
    assert job["error"]["code"] == 3
    assert job["error"]["message"].startswith(f"Failed to import data from {world.uri}/in.jsonl")
    assert words in job["error"]["message"]
    assert not {"outputInfo"} & job.keys()
    assert world.emulator.jobs()[0].billed == 0
    assert world.files() == {}


def test_a_line_is_counted_in_its_own_file(world: World) -> None:
    good = world.put("good.jsonl", lines(rows(3)))
    bad = world.put("bad.jsonl", lines(rows(1)) + b'{"key":null}\n')
    path = world.post(world.body(good, bad))
    world.emulator.advance(1e4)
    message = world.over(path)["error"]["message"]
    assert f"{bad}: " in message
    assert "line 2" in message


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("gs://no-such-bucket/in.jsonl", 9, "Failed to get GCS bucket location"),
        ("gs://{bucket}/missing.jsonl", 3, "it does not exist"),
        ("gs://{bucket}/missing/*", 3, "no file matches"),
    ],
)
def test_an_input_that_is_not_there_is_accepted_and_fails_later(world: World, uri: str, code: int, words: str) -> None:
    path = world.post(world.body(uri.format(bucket=world.bucket.name)))
    assert world.get(path)["state"] == "JOB_STATE_PENDING"
    world.emulator.advance(1e4)
    job = world.over(path)
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", code)
    assert words in job["error"]["message"]


def test_an_output_bucket_that_is_not_there_fails_before_anything_is_paid(world: World) -> None:
    body = world.body(world.put("in.jsonl", lines(rows(2))))
    body["outputConfig"]["gcsDestination"]["outputUriPrefix"] = "gs://no-such-bucket/out"
    path = world.post(body)
    world.emulator.advance(1e4)
    job = world.over(path)
    assert job["error"]["code"] == 9
    assert world.emulator.jobs()[0].billed == 0


@pytest.mark.parametrize(
    ("setting", "words"), [("vertex_max_requests", "more than 5"), ("vertex_max_file_bytes", "larger")]
)
def test_an_input_that_is_too_large_fails(world: World, bucket: Bucket, setting: str, words: str) -> None:
    limits: dict[str, Any] = {setting: 5}
    settings = replace(world.emulator.settings, **limits)
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url) as http:
        job = World(emulator, http, bucket).run(rows(6))
    assert job["error"]["code"] == 3
    assert words in job["error"]["message"]


def test_a_schema_with_dollar_names_fails_as_it_really_does(world: World) -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"a": {"type": "string"}}}
    job = world.run([row("k", "a", generationConfig={"responseJsonSchema": schema})])
    assert '"request.generationConfig.responseJsonSchema.$schema"' in job["error"]["message"]


def test_lines_may_be_as_wide_as_they_like(world: World) -> None:
    parts = [{"text": "x" * 100_000} for _ in range(20)]
    wide = {"key": "k", "request": {"contents": [{"role": "user", "parts": parts}]}}
    found = world.rows(world.run(json.dumps(wide).encode()))
    assert found[0]["request"] == wide["request"]
