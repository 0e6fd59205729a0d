"""Models and types of users, and the forms in which the tests compare their schemas."""

from __future__ import annotations

import dataclasses
import datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, Union

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from lowtide.shaping.json_schema import WORDS
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


def nodes(node: Any) -> list[dict[str, Any]]:
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
    inner += [node["items"]] if "items" in node else []
    return [node, *(found for child in inner for found in nodes(child))]
