from __future__ import annotations

import datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from google.genai import types
from pydantic import BaseModel, ConfigDict, Field
from tests.unit.sdk import as_read, wire_schema

from lowtide import InvalidRequest
from lowtide.shaping.response_schema import response_schema


class Unit(StrEnum):
    GRAM = "g"
    PIECE = "piece"


class Plain(BaseModel):
    text: str
    number: int
    share: float
    flag: bool


class Described(BaseModel):
    """A thing with a description."""

    model_config = ConfigDict(title="The thing")

    name: str = Field(description="What it is called", min_length=1, max_length=20, pattern="^[a-z]+$")
    count: int = Field(3, ge=0, le=10, title="How many")
    when: datetime.datetime
    day: datetime.date


class Ingredient(BaseModel):
    name: str
    amount: float
    unit: Unit


class Recipe(BaseModel):
    title: str
    ingredients: list[Ingredient]
    main: Ingredient
    spare: Ingredient | None = None
    tags: list[str] = []
    minutes: int | None = None


class Book(BaseModel):
    recipes: list[Recipe]
    best: Recipe


class Choices(BaseModel):
    literal: Literal["a", "b"]
    only: Literal["a"]
    unit: Unit
    maybe: Unit | None
    either: int | str
    perhaps: int | str | None
    one_of_two: Plain | Ingredient


class Lists(BaseModel):
    rows: list[list[int]]
    some: Annotated[list[str], Field(min_length=1, max_length=5)]
    units: list[Unit]
    optional: list[Ingredient] | None
    holes: list[int | None]


class OldNames(BaseModel):
    a: Optional[int]  # noqa: UP045 - as users of older code write it
    b: Union[int, str]  # noqa: UP007 - likewise


class SnakeNames(BaseModel):
    max_items: int
    property_ordering: str
    type: str
    properties: list[str]
    enum: int


class Empty(BaseModel):
    pass


ORDINARY: list[Any] = [
    Plain,
    Described,
    Ingredient,
    Recipe,
    Book,
    Choices,
    Lists,
    OldNames,
    Empty,
    list[Recipe],
    list[str],
    list[Unit],
    Plain | Ingredient,
    Recipe | None,
]


def without_ordering(node: Any) -> Any:
    """Without the ordering of less than two properties, and without the title that the SDK makes up for a list."""
    if isinstance(node, dict):
        return {
            name: without_ordering(inner)
            for name, inner in node.items()
            if not (name == "propertyOrdering" and isinstance(inner, list) and len(inner) < 2)
            and (name, inner) != ("title", "Placeholder")
        }
    return [without_ordering(inner) for inner in node] if isinstance(node, list) else node


@pytest.mark.parametrize("model", ORDINARY, ids=str)
def test_an_ordinary_model_becomes_the_schema_that_the_sdk_sends(model: Any) -> None:
    assert without_ordering(as_read(response_schema(model))) == without_ordering(wire_schema(model))


def test_fields_with_the_names_of_keywords_are_fields() -> None:
    schema = response_schema(SnakeNames)
    assert list(schema["properties"]) == ["max_items", "property_ordering", "type", "properties", "enum"]
    assert schema["properties"]["type"]["type"] == "STRING"


def test_the_order_of_the_fields_is_kept() -> None:
    assert response_schema(Recipe)["propertyOrdering"] == list(Recipe.model_fields)


def nodes(node: Any) -> list[dict[str, Any]]:
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
    inner += [node["items"]] if "items" in node else []
    return [node, *(found for child in inner for found in nodes(child))]


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
    assert error.value.field == "config.response_schema"


def test_a_model_that_stands_twice_side_by_side_does_not_contain_itself() -> None:
    class Pair(BaseModel):
        left: Recipe
        right: Recipe

    properties = response_schema(Pair)["properties"]
    assert properties["left"] == properties["right"]


class Level(IntEnum):
    LOW = 1
    HIGH = 2


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


@pytest.mark.parametrize(
    "model", [WithDict, WithDictOfModels, WithTuple, WithLevel, WithNumbers, WithNumber, Open, WithObject]
)
def test_what_the_providers_dialect_cannot_say_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(InvalidRequest) as error:
        response_schema(model)
    assert error.value.field == "config.response_schema"


@pytest.mark.parametrize("thing", [int, dict, object, Enum, Unit, InvalidRequest])
def test_a_class_that_is_no_model_is_refused(thing: type) -> None:
    with pytest.raises(InvalidRequest, match=thing.__name__):
        response_schema(thing)


@pytest.mark.parametrize("schema", [{"type": "STRING"}, {}, types.Schema(type=types.Type.STRING), None])
def test_a_schema_that_is_one_already_passes_as_it_is(schema: Any) -> None:
    assert response_schema(schema) is schema
