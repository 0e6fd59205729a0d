from __future__ import annotations

import json
import typing
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import pytest
from google.genai import types
from pydantic import BaseModel, ConfigDict, Field
from tests.unit.bodies import shaped
from tests.unit.schema_models import (
    ORDINARY,
    WHERE,
    Colour,
    Described,
    Letter,
    Parcel,
    Recipe,
    SnakeNames,
    Stamp,
    Unit,
    nodes,
    response_schema,
    without_ordering,
)
from tests.unit.sdk import as_read, wire_schema

from lowtide import InvalidRequest
from lowtide.shaping.json_schema import VERTEX_WORDS


@pytest.mark.parametrize("model", ORDINARY, ids=str)
def test_an_ordinary_model_becomes_the_schema_that_the_sdk_sends(model: Any) -> None:
    assert without_ordering(as_read(response_schema(model))) == without_ordering(wire_schema(model))


def test_fields_with_the_names_of_keywords_are_fields() -> None:
    schema = response_schema(SnakeNames)
    assert list(schema["properties"]) == ["max_items", "property_ordering", "type", "properties", "enum"]
    assert schema["properties"]["type"]["type"] == "STRING"


def test_the_order_of_the_fields_is_kept() -> None:
    assert response_schema(Recipe)["propertyOrdering"] == list(Recipe.model_fields)


@pytest.mark.parametrize("model", ORDINARY, ids=str)
def test_nothing_is_left_that_the_provider_does_not_know(model: Any) -> None:
    for node in nodes(response_schema(model)):
        types.Schema.model_validate(node)
        assert not {"$ref", "$defs", "allOf", "oneOf", "const"} & set(node)
        assert node.get("type", "STRING") in {"STRING", "INTEGER", "NUMBER", "BOOLEAN", "ARRAY", "OBJECT"}


def test_the_fields_own_description_wins_over_its_models() -> None:
    class Outer(BaseModel):
        inner: Described = Field(description="Mine")
        maybe: Described | None = Field(None, description="Mine too")

    schema = response_schema(Outer)["properties"]
    assert schema["inner"]["description"] == "Mine"
    assert schema["maybe"]["description"] == "Mine too"
    assert schema["maybe"]["nullable"] is True


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


def test_a_tagged_union_is_a_choice() -> None:
    class Owner(BaseModel):
        pet: Cat | Dog = Field(discriminator="kind")

    pet = response_schema(Owner)["properties"]["pet"]
    assert [option["properties"]["kind"]["enum"] for option in pet["anyOf"]] == [["cat"], ["dog"]]


class Node(BaseModel):
    value: int
    children: list[Node]


class Chicken(BaseModel):
    egg: Egg | None


class Egg(BaseModel):
    chicken: Chicken


class Farm(BaseModel):
    first: Chicken


@pytest.mark.parametrize("model", [Node, Chicken, Farm, list[Node]])
def test_a_model_that_contains_itself_is_refused(model: Any) -> None:
    with pytest.raises(InvalidRequest, match="contains itself") as error:
        response_schema(model)
    assert error.value.field.startswith("config.response_schema")


def test_a_model_that_stands_twice_side_by_side_does_not_contain_itself() -> None:
    class Pair(BaseModel):
        left: Recipe
        right: Recipe

    properties = response_schema(Pair)["properties"]
    assert properties["left"] == properties["right"]


class Level(IntEnum):
    LOW = 1
    HIGH = 20


class WithDict(BaseModel):
    counts: dict[str, int]


class WithDictOfModels(BaseModel):
    recipes: dict[str, Recipe]


class WithTuple(BaseModel):
    pair: tuple[int, str]


class WithLevel(BaseModel):
    level: Level


class WithNumbers(BaseModel):
    number: Literal[1, 2]


class WithNumber(BaseModel):
    number: Literal[1]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str


class WithObject(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: pytest.Item


INEXPRESSIBLE: list[tuple[Any, str]] = [
    (WithDict, "properties.counts.additionalProperties"),
    (WithDictOfModels, "properties.recipes.additionalProperties"),
    (WithTuple, "properties.pair.prefixItems"),
    (WithLevel, "properties.level.enum"),
    (WithNumbers, "properties.number.enum"),
    (WithNumber, "properties.number.const"),
    (Open, "additionalProperties"),
    (WithObject, ""),
    (dict, "additionalProperties"),
    (dict[str, int], "additionalProperties"),
    (tuple[int, str], "prefixItems"),
    (object, ""),
    (Enum, ""),
    (InvalidRequest, ""),
    (Literal[1, 2], "enum"),
]


@pytest.mark.parametrize(("schema", "field"), INEXPRESSIBLE, ids=[str(schema) for schema, _ in INEXPRESSIBLE])
def test_what_the_providers_dialect_cannot_say_is_refused_with_its_field(schema: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        response_schema(schema)
    assert error.value.field == f"{WHERE}.{field}".rstrip(".")


@pytest.mark.parametrize("schema", [WithDict, WithDictOfModels, Open, dict[str, int]])
def test_vertex_has_dicts(schema: Any) -> None:
    assert "additionalProperties" in str(response_schema(schema, VERTEX_WORDS))


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    Unit,
    Colour,
    list[Colour],
    list[int],
    list[list[str]],
    Parcel,
    list[Parcel],
    Letter,
    Parcel | None,
    int | str,
    int | None,
    Annotated[list[int], Field(max_length=3)],
]


@pytest.mark.parametrize("schema", TYPES, ids=str)
def test_a_type_becomes_the_schema_that_the_sdk_sends(schema: Any) -> None:
    inner = typing.get_args(schema)[0] if typing.get_origin(schema) is Annotated else schema
    if inner is schema:
        assert without_ordering(as_read(response_schema(schema))) == without_ordering(wire_schema(schema))
    else:
        assert response_schema(schema)["maxItems"] == 3


def test_a_literal_is_a_choice_as_an_enum_is() -> None:
    assert response_schema(Literal["a", "b"]) == {"type": "STRING", "enum": ["a", "b"]}
    assert response_schema(Unit)["enum"] == ["g", "piece"]


def test_the_values_of_an_enum_of_integers_are_choices_as_text() -> None:
    # The SDK numbers them from 1 instead, whatever their values are.
    assert response_schema(Level) == {"type": "STRING", "enum": ["1", "20"], "title": "Level"}


def test_a_tuple_of_one_type_is_a_list_of_that_length() -> None:
    expected = {"type": "ARRAY", "items": {"type": "NUMBER"}, "minItems": 2, "maxItems": 2}
    assert response_schema(tuple[float, float]) == expected
    assert response_schema(Stamp)["maxItems"] == 2


def test_exclusive_bounds_are_kept_as_far_as_the_dialect_has_them() -> None:
    class Bounds(BaseModel):
        whole: int = Field(gt=0, lt=10)
        share: float = Field(gt=0, le=1)

    properties = response_schema(Bounds)["properties"]
    assert (properties["whole"]["minimum"], properties["whole"]["maximum"]) == (1, 9)
    assert (properties["share"]["minimum"], properties["share"]["maximum"]) == (0, 1)


@pytest.mark.parametrize(
    ("schema", "mime_type"),
    [
        (Unit, "text/x.enum"),
        (Literal["a", "b"], "text/x.enum"),
        (Recipe, "application/json"),
        (list[Unit], "application/json"),
        (str, "application/json"),
        ({"type": "STRING"}, None),
    ],
    ids=str,
)
def test_a_type_that_is_given_without_a_mime_type_gets_its_own(schema: Any, mime_type: str | None) -> None:
    def sent(config: dict[str, Any]) -> Any:
        return json.loads(shaped({"key": "k", "contents": "a", "config": config}).body)["generationConfig"]

    assert sent({"response_schema": schema}).get("responseMimeType") == mime_type
    assert sent({"responseSchema": schema, "response_mime_type": "a/b"})["responseMimeType"] == "a/b"
