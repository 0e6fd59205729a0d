"""Requests share a job if they agree on every type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bodies import BODIES, RECIPE, answering, calling, declaring, generation, hello, json_schema, walk

from lowtide import InvalidRequest
from lowtide.shaping.vertex_import import Schemas, fitted
from lowtide.shaping.vertex_import.types import FIELDS


def groups(*bodies: dict[str, Any]) -> list[int]:
    schemas = Schemas()
    return [schemas.group(fitted(body)) for body in bodies]


RECIPE_SCHEMA = {"type": "OBJECT", "properties": {"name": {"type": "STRING"}}}
TOGETHER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one shape": (hello(), hello()),
    "other fields": (generation(temperature=1), generation(topP=0.5)),
    "whole numbers and others": (generation(temperature=1), generation(temperature=0.5)),
    "an object and none": (hello(), generation(seed=1)),
    "an empty list and a full one": (answering({"a": []}), answering({"a": ["b"]})),
    "a full list and an empty one": (answering({"a": [{"b": 1}]}), answering({"a": []})),
    "more fields in a list": (answering({"a": [{"b": 1}]}), answering({"a": [{"c": 1}]})),
    "a schema and none": (generation(responseSchema=RECIPE_SCHEMA), hello()),
    "calls with other arguments": (calling(city="Kiel"), calling(days=2)),
    "a function and none": (declaring(description="a"), hello()),
    "a search and none": (hello(tools=[{"googleSearch": {}}]), hello()),
    "a search without a filter and with one": (
        hello(tools=[{"googleSearch": {}}]),
        hello(tools=[{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}}}]),
    ),
    "a search with a filter and without one": (
        hello(tools=[{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}}}]),
        hello(tools=[{"google_search": {}}, {"googleSearch": {"timeRangeFilter": None}}]),
    ),
}
APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a number and a text": (calling(days=1), calling(days="1")),
    "a number and a truth": (calling(days=1), calling(days=True)),
    "a text and an object": (calling(city="a"), calling(city={"name": "a"})),
    "an object and a list of it": (calling(city={"name": "a"}), calling(city=[{"name": "a"}])),
    "lists of two kinds": (calling(days=[1]), calling(days=["1"])),
    "fields of two kinds in lists": (answering({"a": [{"b": 1}]}), answering({"a": [{"b": "1"}]})),
    "names in other letters": (calling(city="a"), calling(City="a")),
    "two response schemas": (
        generation(responseSchema=RECIPE_SCHEMA),
        generation(responseSchema={"type": "OBJECT", "properties": {"title": {"type": "STRING"}}}),
    ),
    "a response schema with one more": (
        json_schema(**RECIPE),
        json_schema(**{**RECIPE, "properties": {"name": {"type": "string"}, "more": {"type": "string"}}}),
    ),
    "two functions": (
        declaring(parameters=RECIPE_SCHEMA),
        declaring(parameters={"type": "OBJECT", "properties": {"title": {"type": "STRING"}}}),
    ),
}


@pytest.mark.parametrize(("one", "other"), TOGETHER.values(), ids=TOGETHER)
def test_requests_that_agree_share_a_job(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert groups(one, other, one) == [0, 0, 0]
    assert groups(other, one, other) == [0, 0, 0]


@pytest.mark.parametrize(("one", "other"), APART.values(), ids=APART)
def test_requests_that_do_not_agree_go_into_jobs_of_their_own(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert groups(one, other, one, other) == [0, 1, 0, 1]
    assert groups(other, one, other, one) == [0, 1, 0, 1]


def test_what_a_group_has_taken_over_counts_too() -> None:
    assert groups(hello(), calling(x=1), calling(x="1"), calling(y=1), calling(x="2", y=True)) == [0, 0, 1, 0, 1]


def test_functions_of_several_tools_are_not_held_against_each_other_in_one_request() -> None:
    tools = [*declaring(parameters=RECIPE_SCHEMA)["tools"], *declaring(description="other")["tools"]]
    assert groups(hello(tools=tools), hello(tools=tools)) == [0, 0]


def test_there_are_not_more_groups_than_allowed() -> None:
    schemas = Schemas(limit=3)
    bodies = [
        generation(responseSchema={"type": "OBJECT", "properties": {f"p{n}": {"type": "STRING"}}}) for n in range(4)
    ]
    assert [schemas.group(body) for body in bodies[:3]] == [0, 1, 2]
    with pytest.raises(InvalidRequest, match="more than 3 groups"):
        schemas.group(bodies[3])
    assert schemas.group(bodies[1]) == 1
    assert len(schemas) == 3


def test_a_group_does_not_grow_beyond_the_fields_of_one_file() -> None:
    half = FIELDS // 2 + 1
    one, other = ({f"{letter}{n}": n for n in range(half)} for letter in "ab")
    assert groups(answering(one), answering(other), answering({"a1": 1, "b1": 1})) == [0, 1, 0]


def test_many_shapes_are_forgotten_without_harm() -> None:
    schemas = Schemas()
    bodies = [calling(**{f"a{n}": n}) for n in range(1_500)]
    assert {schemas.group(body) for body in bodies + bodies} == {0}
    assert schemas.group(calling(a7="seven")) == 1


@settings(deadline=None, max_examples=200)
@given(st.lists(BODIES, max_size=8))
def test_no_two_requests_of_a_group_have_two_types_at_one_path(bodies: list[dict[str, Any]]) -> None:
    schemas, seen = Schemas(), dict[int, dict[str, tuple[str, str]]]()
    for body in bodies:
        try:
            fit = fitted(body)
        except InvalidRequest:
            continue
        number = schemas.group(fit)
        assert number <= len(seen)
        found = seen.setdefault(number, {})
        for path, kind in walk(fit):
            assert found.setdefault(path.lower(), (path, kind)) == (path, kind)
        assert schemas.group(fit) == number
    assert len(schemas) == len(seen)
