"""JSON Schema as a dict, and whatever can be a schema, in the provider's dialect."""

from __future__ import annotations

import copy
import datetime
from typing import Annotated, Any, Literal, Optional, Union

import msgspec
import pytest
from google.genai import types
from hypothesis import given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model
from tests.unit.bodies import generation, hello, shaped
from tests.unit.schema_models import (
    Book,
    Choices,
    Letter,
    Lists,
    Parcel,
    Recipe,
    Unit,
    nodes,
    response_schema,
    without_ordering,
)
from tests.unit.sdk import as_read, wire_schema

from lowtide import InvalidRequest
from lowtide.shaping.checking import problems
from lowtide.shaping.json_schema import FOREIGN, KEYWORDS, WORDS

# Schemas as dicts.

SAME: list[Any] = [
    {"type": "STRING"},
    {"type": "string"},
    {},
    {"type": "OBJECT", "properties": {"const": {"type": "STRING"}, "$ref": {"type": "INTEGER", "nullable": True}}},
    {"any_of": [{"type": "STRING", "min_length": 1}], "property_ordering": ["a"], "description": "$ref"},
    {"type": "ARRAY", "items": {"type": "INTEGER", "format": "enum", "enum": ["1", "2"]}, "default": {"const": 1}},
    types.Schema(type=types.Type.STRING),
    None,
]


@pytest.mark.parametrize("schema", SAME, ids=str)
def test_a_schema_in_the_providers_dialect_passes_as_it_is(schema: Any) -> None:
    before = copy.deepcopy(schema)
    assert response_schema(schema) is schema
    assert schema == before


STRING = {"type": "STRING"}
CONVERTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a reference": (
        {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "string"}}},
        {"type": "ARRAY", "items": STRING},
    ),
    "a reference to a reference, in the old place": (
        {"$ref": "#/definitions/A", "definitions": {"A": {"$ref": "#/definitions/B"}, "B": {"type": "string"}}},
        STRING,
    ),
    "a constant": ({"type": "string", "const": "a"}, {"type": "STRING", "enum": ["a"]}),
    "a type or null": ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
    "null alone": ({"type": "null"}, {"nullable": True}),
    "several types": (
        {"type": ["string", "integer", "null"], "minLength": 1, "minimum": 2, "title": "T"},
        {
            "anyOf": [{"type": "STRING", "minLength": 1}, {"type": "INTEGER", "minimum": 2}],
            "nullable": True,
            "title": "T",
        },
    ),
    "a choice of one or null": (
        {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "D"},
        {"type": "STRING", "nullable": True, "description": "D"},
    ),
    "one of several": ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [STRING, {"type": "INTEGER"}]}),
    "all of one": ({"allOf": [{"type": "string"}], "title": "T"}, {"type": "STRING", "title": "T"}),
    "choices with null": ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
    "a closed object": (
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        {"type": "OBJECT", "properties": {"a": STRING}, "propertyOrdering": ["a"]},
    ),
    "annotations": ({"$schema": "x", "$id": "y", "type": "string", "examples": [1], "readOnly": True}, STRING),
    "an order that is given": (
        {"type": "object", "properties": {"a": {"const": "x"}}, "property_ordering": ["a"]},
        {"type": "OBJECT", "properties": {"a": {"type": "STRING", "enum": ["x"]}}, "propertyOrdering": ["a"]},
    ),
}


@pytest.mark.parametrize(("schema", "expected"), CONVERTED.values(), ids=CONVERTED)
def test_json_schema_is_converted(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert response_schema(schema) == expected
    assert schema == before
    types.Schema.model_validate(expected)
    assert response_schema(expected) is expected


@pytest.mark.parametrize("model", [Recipe, Book, Choices, Lists])
def test_a_json_schema_becomes_what_its_model_becomes(model: type[BaseModel]) -> None:
    assert response_schema(model.model_json_schema()) == response_schema(model)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"properties": {"a": {"patternProperties": {}}}}, "properties.a.patternProperties"),
    ({"items": {"not": {}}}, "items.not"),
    ({"anyOf": [{"type": "string"}, {"enum": [1, 2]}]}, "anyOf[1].enum"),
    ({"const": True}, "const"),
    ({"$ref": "#/$defs/B"}, "$ref"),
    ({"$ref": "#"}, ""),
    ({"$ref": 5}, "$ref"),
    ({"items": {"$ref": "https://x/y"}}, "items.$ref"),
    ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "allOf"),
    ({"additionalProperties": True}, "additionalProperties"),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}, "items"),
]


@pytest.mark.parametrize(("schema", "field"), UNFIT, ids=[f"{n}-{field}" for n, (_, field) in enumerate(UNFIT)])
@pytest.mark.parametrize("shape", ["config", "request"])
def test_json_schema_that_the_dialect_cannot_say_is_refused_in_both_shapes(
    schema: dict[str, Any], field: str, shape: str
) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "config": {"contents": "a", "config": {"response_schema": schema}},
        "request": {"request": hello(generation_config={"responseSchema": schema})},
    }
    with pytest.raises(InvalidRequest) as caught:
        shaped({"key": "k", **shapes[shape]})
    place = "config.response_schema" if shape == "config" else "request.generation_config.responseSchema"
    assert caught.value.field == f"{place}.{field}".rstrip(".")


def test_a_misspelt_keyword_is_found_whether_converted_or_not() -> None:
    for schema in ({"propertis": {}, "type": "object"}, {"propertis": {}, "type": ["object", "null"]}):
        with pytest.raises(InvalidRequest, match="did you mean properties") as caught:
            shaped({"key": "k", "contents": "a", "config": {"response_schema": schema}})
        assert caught.value.field == "config.response_schema.propertis"


def test_references_that_grow_without_bounds_are_refused_while_it_is_cheap() -> None:
    definitions = {f"L{n}": {"anyOf": [{"$ref": f"#/$defs/L{n + 1}"}] * 20} for n in range(12)}
    with pytest.raises(InvalidRequest, match=f"{KEYWORDS:,} keywords"):
        response_schema({"$ref": "#/$defs/L0", "$defs": {**definitions, "L12": {"type": "string"}}})


def test_a_schema_nested_beyond_the_interpreter_is_refused() -> None:
    schema: dict[str, Any] = {"const": "a"}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        response_schema(schema)


@pytest.mark.parametrize("schema", [Recipe, list[Recipe], str, Unit], ids=str)
@pytest.mark.parametrize("shape", ["config", "request"])
def test_a_type_in_place_of_a_json_schema_is_refused_with_the_right_one(schema: Any, shape: str) -> None:
    config = {"response_json_schema": schema}
    item = {"contents": "a", "config": config} if shape == "config" else {"request": hello(generationConfig=config)}
    with pytest.raises(InvalidRequest, match=r"model_json_schema\(\)") as caught:
        shaped({"key": "k", **item})
    assert caught.value.field.endswith(".response_json_schema")


# Whatever pydantic can express.

SCALARS = st.sampled_from([str, int, float, bool, datetime.date, Unit, Literal["x", "y"], type(None), Parcel, Letter])
BOUNDED = st.builds(lambda low, high: Annotated[int, Field(gt=low, le=high)], st.integers(-9, 0), st.integers(2, 9))
ANNOTATIONS: st.SearchStrategy[Any] = st.recursive(
    SCALARS | BOUNDED,
    lambda inner: (
        st.builds(lambda one: list[one], inner)  # type: ignore[valid-type]
        | st.builds(lambda one: Optional[one], inner)  # noqa: UP045
        | st.builds(lambda one, other: Union[one, other], inner, inner)  # noqa: UP007
        | st.builds(lambda one: tuple[one, one], inner)  # type: ignore[valid-type]
        | st.dictionaries(st.sampled_from(["a", "items", "type", "b_c"]), inner, min_size=1, max_size=3).map(
            lambda fields: create_model("Made", **{name: (of, ...) for name, of in fields.items()})  # type: ignore[call-overload]
        )
    ),
    max_leaves=6,
)


def plain_words(node: Any) -> None:
    """Asserts that a schema has the words of the dialect only, in its form."""
    types.Schema.model_validate(node)
    for inner in nodes(node):
        assert inner.keys() <= WORDS
        assert inner.get("type", "STRING") in {"STRING", "INTEGER", "NUMBER", "BOOLEAN", "ARRAY", "OBJECT"}


@hypothesis_settings(deadline=None, max_examples=150)
@given(ANNOTATIONS)
def test_whatever_pydantic_can_express_is_said_in_the_providers_words(annotation: Any) -> None:
    schema = response_schema(annotation)
    plain_words(schema)
    assert problems(json_bytes(schema)) == []
    assert response_schema(schema) is schema


@hypothesis_settings(deadline=None, max_examples=150)
@given(ANNOTATIONS)
def test_where_the_sdk_has_a_conversion_it_is_the_same(annotation: Any) -> None:
    try:
        expected = wire_schema(annotation)
    except Exception:  # noqa: BLE001 - whatever the SDK cannot convert
        reject()
    assert without_ordering(as_read(response_schema(annotation))) == without_ordering(expected)


WORDLIST = st.sampled_from(
    [*sorted(FOREIGN), "type", "enum", "properties", "items", "anyOf", "any_of", "minimum", "required", "nullable"]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["null", "string", "#", "#/$defs/type", "array"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDLIST, inner, max_size=4),
    max_leaves=12,
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.dictionaries(WORDLIST, JUNK, max_size=5))
def test_anything_is_converted_or_refused_with_a_field(schema: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    field = ""
    try:
        shaped({"key": "k", "contents": "a", "config": {"response_schema": schema}})
    except InvalidRequest as error:
        field = error.field
    assert field.startswith("config.response_schema" if field else "")
    assert schema == before


def json_bytes(schema: Any) -> bytes:
    return msgspec.json.encode(generation(responseSchema=schema))
