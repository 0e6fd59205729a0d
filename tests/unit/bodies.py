"""Bodies of requests to try things with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from lowtide.shaping import Shaped, shaper_of
from lowtide.states import Kind, ProviderName

RECIPE = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def shaped(
    item: object, *, model: str = "m", kind: Kind = Kind.GENERATION, provider: str = ProviderName.GEMINI
) -> Shaped:
    return shaper_of(ProviderName(provider), model=model, kind=kind).shape(item)


def hello(**more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], **more}


def generation(**config: Any) -> dict[str, Any]:
    return hello(generationConfig=config)


def calling(**args: Any) -> dict[str, Any]:
    return {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": args}}]}]}


def answering(response: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": response}}]}]}


def declaring(**function: Any) -> dict[str, Any]:
    return hello(tools=[{"functionDeclarations": [{"name": "f", **function}]}])


def json_schema(**schema: Any) -> dict[str, Any]:
    return generation(responseJsonSchema=schema)


NAMES = st.sampled_from(
    ["a", "A", "b", "aB", "a_b", "args", "items", "labels", "generationConfig", "responseSchema", "x-y"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
BODIES = (
    st.dictionaries(NAMES, JSON, min_size=1, max_size=4)
    | st.builds(answering, JSON)
    | st.builds(lambda schema: json_schema(**schema), st.dictionaries(NAMES, JSON, max_size=3))
)


def walk(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each path of a body with the type that stands there; the elements of a list share a path."""
    if isinstance(value, dict):
        yield path, "object"
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}")
    elif isinstance(value, list):
        yield path, "list"
        for inner in value:
            yield from walk(inner, f"{path}[]")
    else:
        kinds = {str: "text", bool: "yes or no", int: "number", float: "number", type(None): "null"}
        yield path, kinds[type(value)]
