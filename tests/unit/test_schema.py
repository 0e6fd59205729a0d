from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import typing
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, Union

import msgspec
import pytest
from google.genai import types
from hypothesis import given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model
from tests.unit.bodies import generation, hello, shaped
from tests.unit.sdk import as_read, wire_schema
from typing_extensions import TypedDict

from lowtide import InvalidRequest
from lowtide.shaping.checking import problems
from lowtide.shaping.json_schema import FOREIGN, KEYWORDS, VERTEX_WORDS, WORDS
from lowtide.shaping.response_schema import response_schema as _response_schema

WHERE = "config.response_schema"


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


def response_schema(schema: Any, words: frozenset[str] = WORDS) -> Any:
    return _response_schema(schema, WHERE, words)


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


# Types that are no models: what the SDK makes of them.


@dataclasses.dataclass
class Parcel:
    """A parcel."""

    weight: float
    unit: Unit
    pieces: int = 1


class Letter(TypedDict):
    to: str
    pages: NotRequired[int]


class Stamp(NamedTuple):
    left: float
    top: float


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


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


@hypothesis_settings(deadline=None, max_examples=400)
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
