"""The producer's check of requests beside the emulator's, which was written without it.

A producer that lets a request pass which the provider cannot parse costs its user a whole job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.emulator.helpers import prompt
from tests.emulator.test_wire import REFUSED

from lowtide.errors import InvalidRequest
from lowtide.shaping import shaper_of
from lowtide.states import Kind, ProviderName, UnknownFields
from lowtide_emulator.wire import DEVELOPER_TYPES, VERTEX_TYPES, RequestChecker

CHECKERS = {
    ProviderName.GEMINI: RequestChecker(DEVELOPER_TYPES, "GenerateContentRequest"),
    ProviderName.VERTEX: RequestChecker(VERTEX_TYPES, "GenerateContentRequest"),
}
TYPES = json.loads(resources.files("lowtide.shaping").joinpath("request_types.json").read_text())["types"]
"""The producer's types: of a model, its fields; of an enum, its names."""
DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "audioTranscription",
    "toolCall",
    "toolResponse",
)
TIMES = {"startOffset", "endOffset", "duration", "timeout", "sseReadTimeout"}
JSON = st.sampled_from([{"a": [1, None]}, {"b": "c"}])
INTEGERS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.just("7"), st.just(7.0))
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["", "a", "ü"]),
    "int": INTEGERS,
    "int32": INTEGERS,
    "float": st.one_of(st.floats(-9, 9), st.integers(-9, 9), st.just("0.5")),
    "bool": st.booleans(),
    "bytes": st.sampled_from(["", "AAAA", "-_8", "AA=="]),
    "time": st.just("2026-01-01T00:00:00Z"),
    "duration": st.just("1.5s"),
    "any": JSON,
}


def values(of: str, depth: int) -> st.SearchStrategy[Any]:
    """Returns values of a type in the notation of the producer's types."""
    if of.startswith("["):
        return st.lists(values(of[1:-1], depth), max_size=2)
    if of == "{any}":
        return JSON
    if of.startswith("{"):
        return st.dictionaries(st.sampled_from("ab"), values(of[1:-1], depth), max_size=2)
    if of in PLAIN:
        return PLAIN[of]
    known = TYPES[of]
    return st.sampled_from([*known, known[0].lower()]) if isinstance(known, list) else objects(of, known, depth)


@st.composite
def objects(draw: st.DrawFn, of: str, known: dict[str, str], depth: int) -> dict[str, Any]:
    """Draws an object of a type with up to three of its fields."""
    if depth > 8 or not known:
        return {}
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True))
    if of in ("Part", "FunctionResponsePart"):
        data = [name for name in chosen if name in DATA]
        chosen = [name for name in chosen if name not in data[1:]]
    found = {}
    for name in chosen:
        snaked = "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
        value = st.just("1.5s") if name in TIMES else values(known[name], depth + 1)
        value = st.just("2026-01-01T00:00:00Z") if of == "Interval" else value
        found[draw(st.sampled_from([name, snaked]))] = draw(st.one_of(value, value, st.none()))
    return found


REQUESTS = values("GenerateContentRequest", 0).map(lambda found: {**prompt("hi"), **found})


@pytest.mark.parametrize("provider", ProviderName)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(request_of_one=REQUESTS)
def test_what_the_producer_shapes_the_provider_can_parse(
    provider: ProviderName, request_of_one: dict[str, Any]
) -> None:
    shaper = shaper_of(provider, model="gemini-3.5-flash", kind=Kind.GENERATION, unknown_fields=UnknownFields.REFUSE)
    try:
        shaped = shaper.shape({"key": "k", "request": request_of_one})
    except InvalidRequest:
        assume(False)
        return
    assert CHECKERS[provider].problem(shaped.body) is None


def requests_with_one_field() -> Iterator[dict[str, Any]]:
    """A request for each field of each type, with the fewest other fields: the fields on the way to it."""
    ways: dict[str, list[tuple[str, str, str]]] = {"GenerateContentRequest": []}
    for of in (waiting := ["GenerateContentRequest"]):
        for name, kind in TYPES[of].items():
            request = with_field(of, name, simple(kind))
            for above, field, around in reversed(ways[of]):
                request = with_field(above, field, in_kind(around, request))
            yield {**prompt("hi"), **request}
            inner = kind.strip("[]{}")
            if isinstance(TYPES.get(inner), dict) and inner not in ways:
                ways[inner] = [*ways[of], (of, name, kind)]
                waiting.append(inner)


def with_field(of: str, name: str, value: Any) -> dict[str, Any]:
    return {name: value} | ({"text": "x"} if of == "Part" and name not in DATA else {})


def in_kind(kind: str, value: Any) -> Any:
    if kind.startswith("["):
        return [in_kind(kind[1:-1], value)]
    return {"a": in_kind(kind[1:-1], value)} if kind.startswith("{") else value


def simple(kind: str) -> Any:
    """A value of a type; of an object the emptiest one that the producer takes."""
    of = kind.strip("[]{}")
    plain = {"string": "a", "bool": True, "bytes": "AAAA", "time": "2026-01-01T00:00:00Z", "duration": "1.5s"}
    plain |= {"int": 7, "int32": 7, "float": 1.5, "any": {"a": 1}}
    needed = {"Content": {"parts": [{"text": "x"}]}, "Part": {"text": "x"}}
    known = TYPES.get(of)
    return in_kind(kind, known[-1] if isinstance(known, list) else plain.get(of, needed.get(of, {})))


@pytest.mark.parametrize("provider", ProviderName)
def test_the_provider_can_parse_each_field_that_the_producer_takes(provider: ProviderName) -> None:
    shaper = shaper_of(provider, model="gemini-3.5-flash", kind=Kind.GENERATION, unknown_fields=UnknownFields.REFUSE)
    taken = 0
    for request in requests_with_one_field():
        try:
            shaped = shaper.shape({"key": "k", "request": request})
        except InvalidRequest:
            continue
        assert CHECKERS[provider].problem(shaped.body) is None
        taken += 1
    assert taken > 150


MENDED = {"a part as text", "a list of types in a schema"}
"""Requests that the producer brings into the right form."""


@pytest.mark.parametrize("case", sorted(REFUSED.keys() - MENDED))
def test_what_the_provider_cannot_parse_the_producer_refuses(case: str) -> None:
    shaper = shaper_of(
        ProviderName.GEMINI, model="gemini-3.5-flash", kind=Kind.GENERATION, unknown_fields=UnknownFields.REFUSE
    )
    with pytest.raises(InvalidRequest):
        shaper.shape({"key": "k", "request": json.loads(json.dumps(REFUSED[case][0]))})
