from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel
from tests.unit.bodies import BODIES, RECIPE, answering, calling, declaring, generation, hello, json_schema, walk

from lowtide import InvalidRequest
from lowtide.shaping.vertex_import import Schemas, fitted
from lowtide.shaping.vertex_import.types import FIELDS, LEVELS


def refusal(body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        fitted(body)
    return caught.value


def nested(levels: int) -> dict[str, Any]:
    """An object of so many levels, itself the first."""
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


# What fits stays as it is.

FITS: dict[str, dict[str, Any]] = {
    "a text": hello(),
    "numbers of both kinds at one place": generation(temperature=1) | {"labels": {"a": "b"}},
    "parts of many kinds": {
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"fileData": {"fileUri": "gs://b/a", "mimeType": "image/png"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1, "b": [1, 2.5]}}}]},
        ]
    },
    "either letter case": {"contents": [{"parts": [{"inline_data": {"mime_type": "a/b", "data": "AA=="}}]}]},
    "empty and odd texts": hello(systemInstruction={"parts": [{"text": ""}, {"text": "null {} \u0000 🌊"}]}),
    "an empty list of the user's": answering({"found": []}),
    "an empty list before a full one": answering({"rows": [{"a": []}, {"a": [1]}, {"a": []}]}),
    "levels up to the limit": answering(nested(LEVELS - 4)),
    "a long name": calling(**{"n" * 300: 1}),
    "a name that begins like a reserved one": calling(_tables=1, table_1=1, _file=2),
    "a schema": generation(responseSchema={"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}),
    "properties named like keywords": json_schema(
        properties={"examples": {"type": "string"}, "definitions": {"type": "null"}, "required": {"type": "array"}}
    ),
    "false": json_schema(type="object", additionalProperties=False),
    "a null that keeps a tool from being empty": hello(tools=[{"google_search": {"timeRangeFilter": None}}]),
    "a null in another tool": hello(tools=[{"googleMaps": {"enableWidget": None}}]),
}


@pytest.mark.parametrize("body", FITS.values(), ids=FITS)
def test_what_fits_is_passed_as_the_very_same_object(body: dict[str, Any]) -> None:
    assert fitted(body) is body
    assert fitted(body) is body  # the second time from what is known of the first
    assert Schemas().group(body) == 0


# What says nothing is left out.

MENDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a null": (hello(safetySettings=None), hello()),
    "nulls inside": (generation(temperature=None, topP=1), generation(topP=1)),
    "a null part field": (
        {"contents": [{"role": None, "parts": [{"text": "a", "thought": None}]}]},
        {"contents": [{"parts": [{"text": "a"}]}]},
    ),
    "a null among a call's arguments": (calling(city=None, days=1), calling(days=1)),
    "nulls deep in an answer": (answering({"a": [{"b": None, "c": 1}]}), answering({"a": [{"c": 1}]})),
    "an empty config": (generation(), hello()),
    "a config of nulls": (generation(temperature=None), hello()),
    "an empty config within": (generation(thinkingConfig={}, seed=1), generation(seed=1)),
    "in snakes": (hello(generation_config={"thinking_config": {}}), hello()),
    "empty labels": (hello(labels={}), hello()),
    "an empty tool config": (hello(toolConfig={"functionCallingConfig": {}}), hello()),
    "empty lists": (
        hello(tools=[], safetySettings=[], generationConfig={"stopSequences": []}),
        hello(),
    ),
    "a call without arguments": (
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {}}}]}]},
        {"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]},
    ),
    "an empty video metadata": (
        {"contents": [{"parts": [{"text": "a", "videoMetadata": {"fps": None}}]}]},
        {"contents": [{"parts": [{"text": "a"}]}]},
    ),
    "an embedding without settings": (
        {"content": {"parts": [{"text": "a"}]}, "embed_content_config": {}},
        {"content": {"parts": [{"text": "a"}]}},
    ),
    "$schema": (
        json_schema(**{"$schema": "https://json-schema.org/draft/2020-12/schema"}, **RECIPE),
        json_schema(**RECIPE),
    ),
    "a search without fields": (
        hello(tools=[{"googleSearch": {}}, {"google_search": {"excludeDomains": []}}]),
        hello(tools=[{"googleSearch": {"timeRangeFilter": None}}, {"google_search": {"timeRangeFilter": None}}]),
    ),
    "several nulls in a tool": (
        hello(tools=[{"googleSearch": {"exclude_domains": None, "timeRangeFilter": None}}]),
        hello(tools=[{"googleSearch": {"exclude_domains": None}}]),
    ),
    "a null beside a value in a tool": (
        hello(tools=[{"googleSearch": {"excludeDomains": ["x.de"], "timeRangeFilter": None}}]),
        hello(tools=[{"googleSearch": {"excludeDomains": ["x.de"]}}]),
    ),
    "annotations": (
        json_schema(**{"$id": "a", "$comment": "b", "examples": [1, "a", None], "deprecated": True}, **RECIPE),
        json_schema(**RECIPE),
    ),
    "annotations within": (
        json_schema(type="array", items={"type": "string", "examples": ["a"], "readOnly": True}),
        json_schema(type="array", items={"type": "string"}),
    ),
    "a null default": (json_schema(type="string", default=None), json_schema(type="string")),
    "keywords that allow anything": (
        json_schema(type="object", properties={}, additionalProperties={}, required=[]),
        json_schema(type="object"),
    ),
    "items of any kind": (json_schema(type="array", items={}), json_schema(type="array")),
    "a function's parameters": (
        declaring(parametersJsonSchema={"$schema": "a", **RECIPE}),
        declaring(parametersJsonSchema=RECIPE),
    ),
    "a function's parameters in snakes": (
        declaring(parameters_json_schema={"$schema": "a", **RECIPE}),
        declaring(parameters_json_schema=RECIPE),
    ),
    "a function's answer": (
        declaring(responseJsonSchema={"$schema": "a", **RECIPE}, response={"type": "OBJECT", "properties": {}}),
        declaring(responseJsonSchema=RECIPE, response={"type": "OBJECT"}),
    ),
    "a reference": (
        json_schema(
            **{"$defs": {"Step": {"type": "string", "title": "Step"}}},
            type="array",
            items={"$ref": "#/$defs/Step", "title": "One step"},
        ),
        json_schema(type="array", items={"type": "string", "title": "One step"}),
    ),
    "references to references, in the old place": (
        json_schema(
            definitions={
                "A": {"$ref": "#/definitions/B"},
                "B": {"type": "object", "properties": {"c": {"$ref": "#/definitions/C"}}},
                "C": {"type": "null", "$comment": "nothing"},
            },
            anyOf=[{"$ref": "#/definitions/A"}, {"$ref": "#/definitions/B"}],
        ),
        json_schema(anyOf=[{"type": "object", "properties": {"c": {"type": "null"}}}] * 2),
    ),
    "a reference at the top": (
        json_schema(**{"$defs": {"R": RECIPE}, "$ref": "#/$defs/R"}),
        json_schema(**RECIPE),
    ),
}


@pytest.mark.parametrize(("body", "expected"), MENDED.values(), ids=MENDED)
def test_what_says_nothing_is_left_out(body: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    assert fitted(body) == expected
    assert fitted(body) == expected
    assert body == before
    assert fitted(expected) is expected


def test_a_pydantic_models_json_schema_fits() -> None:
    class Step(BaseModel):
        text: str
        minutes: int | None = None

    class Recipe(BaseModel):
        steps: list[Step]
        first: Step

    schema = fitted(json_schema(**Recipe.model_json_schema()))["generationConfig"]["responseJsonSchema"]
    assert schema["properties"]["steps"]["items"] == schema["properties"]["first"]
    assert "$" not in json.dumps(schema)


# What cannot be mended is refused, with the field.

BAD: list[tuple[dict[str, Any], str]] = [
    (hello(tools=[{"urlContext": {"a": 1}}, {"code_execution": {}}]), "request.tools[1].code_execution"),
    (hello(tools=[{"urlContext": {}}]), "request.tools[0].urlContext"),
    (hello(tools=[{"googleMaps": {}}]), "request.tools[0].googleMaps"),
    (hello(tools=[{"googleSearchRetrieval": {}}]), "request.tools[0].googleSearchRetrieval"),
    (hello(tools=[{"retrieval": {"externalApi": {"a": None}}}]), "request.tools[0].retrieval.externalApi"),
    (calling(only=None, filters={"a": None}), "request.contents[0].parts[0].functionCall.args.filters"),
    (hello(tools=[{}]), "request.tools[0]"),
    (hello(tools=[None]), "request.tools[0]"),
    (generation(routingConfig={"autoMode": {}}), "request.generationConfig.routingConfig.autoMode"),
    ({}, "request"),
    ({"contents": None}, "request"),
    (answering({}), "request.contents[0].parts[0].functionResponse.response"),
    (answering({"rows": {}}), "request.contents[0].parts[0].functionResponse.response.rows"),
    (calling(filters={}), "request.contents[0].parts[0].functionCall.args.filters"),
    (answering({"a": [1, None]}), "request.contents[0].parts[0].functionResponse.response.a[1]"),
    (answering({"a": [1, "b"]}), "request.contents[0].parts[0].functionResponse.response.a[1]"),
    (answering({"a": [1, True]}), "request.contents[0].parts[0].functionResponse.response.a[1]"),
    (answering({"a": [{"b": 1}, {"b": "c"}]}), "request.contents[0].parts[0].functionResponse.response.a[1].b"),
    (answering({"a": [{"b": 1}, 1]}), "request.contents[0].parts[0].functionResponse.response.a[1]"),
    (answering({"a": [{"b": [1]}, {"b": {"c": 1}}]}), "request.contents[0].parts[0].functionResponse.response.a[1].b"),
    (answering({"a": [{"b": 1}, {"B": 1}]}), "request.contents[0].parts[0].functionResponse.response.a[1].B"),
    (answering({"a": [[1]]}), "request.contents[0].parts[0].functionResponse.response.a[0]"),
    (answering({"a": [[]]}), "request.contents[0].parts[0].functionResponse.response.a[0]"),
    (
        {"contents": [*calling(x=1)["contents"], *calling(x="1")["contents"]]},
        "request.contents[1].parts[].functionCall.args.x",
    ),
    (calling(**{"first-name": 1}), "request.contents[0].parts[0].functionCall.args.first-name"),
    (calling(**{"1st": 1}), "request.contents[0].parts[0].functionCall.args.1st"),
    (calling(**{"": 1}), "request.contents[0].parts[0].functionCall.args."),
    (calling(größe=1), "request.contents[0].parts[0].functionCall.args.größe"),
    (calling(**{"a\n": 1}), "request.contents[0].parts[0].functionCall.args.a\n"),
    (calling(**{"n" * 301: 1}), f"request.contents[0].parts[0].functionCall.args.{'n' * 301}"),
    (calling(_Table_a=1), "request.contents[0].parts[0].functionCall.args._Table_a"),
    (calling(_PARTITIONTIME=1), "request.contents[0].parts[0].functionCall.args._PARTITIONTIME"),
    (calling(__root__x=1), "request.contents[0].parts[0].functionCall.args.__root__x"),
    (calling(city=1, City=1), "request.contents[0].parts[0].functionCall.args.City"),
    (hello(labels={"cost-centre": "a"}), "request.labels.cost-centre"),
    (answering(nested(LEVELS - 3)), "request.contents[0].parts[0].functionResponse.response" + ".in" * (LEVELS - 4)),
    (json_schema(), "request.generationConfig.responseJsonSchema"),
    (json_schema(properties={"a": {}}), "request.generationConfig.responseJsonSchema.properties.a"),
    (generation(responseSchema={"type": "ARRAY", "items": {}}), "request.generationConfig.responseSchema.items"),
    (json_schema(const=None), "request.generationConfig.responseJsonSchema.const"),
    (json_schema(enum=["a", None]), "request.generationConfig.responseJsonSchema.enum[1]"),
    (json_schema(enum=["a", 1]), "request.generationConfig.responseJsonSchema.enum[1]"),
    (json_schema(properties={"a-b": {"type": "null"}}), "request.generationConfig.responseJsonSchema.properties.a-b"),
    (
        json_schema(patternProperties={"^a": {"type": "null"}}),
        "request.generationConfig.responseJsonSchema.patternProperties.^a",
    ),
    (json_schema(items={"$ref": "#/$defs/A"}), "request.generationConfig.responseJsonSchema.items.$ref"),
    (json_schema(items={"$ref": 5}), "request.generationConfig.responseJsonSchema.items.$ref"),
    (json_schema(items={"$ref": "#"}), "request.generationConfig.responseJsonSchema.items.$ref"),
    (json_schema(items={"$ref": "https://x/y"}), "request.generationConfig.responseJsonSchema.items.$ref"),
    (
        json_schema(**{"$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}, items={"$ref": "#/$defs/A"}),
        "request.generationConfig.responseJsonSchema.items.items.$ref",
    ),
    (
        json_schema(**{"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}),
        "request.generationConfig.responseJsonSchema.$ref",
    ),
    (
        json_schema(**{"$defs": {"A": {"type": "string"}}}, items={"$ref": "#/$defs/A", "type": "null"}),
        "request.generationConfig.responseJsonSchema.items.type",
    ),
    (json_schema(default={"$ref": "#/$defs/A"}), "request.generationConfig.responseJsonSchema.default.$ref"),
    (answering({f"f{n}": n for n in range(FIELDS)}), "request"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=[f"{number}" for number, _ in enumerate(BAD)])
def test_what_the_importer_refuses_is_refused_with_its_field(body: dict[str, Any], field: str) -> None:
    for _ in range(2):
        error = refusal(body)
        assert error.field == field
        assert error.reason


def test_references_that_grow_without_bounds_are_refused_while_it_is_cheap() -> None:
    definitions = {f"L{n}": {"anyOf": [{"$ref": f"#/$defs/L{n + 1}"}] * 20} for n in range(12)} | {
        "L12": {"type": "string"}
    }
    assert "keywords" in refusal(json_schema(**{"$defs": definitions, "$ref": "#/$defs/L0"})).reason


def test_nesting_beyond_the_interpreter_is_refused_like_any_other() -> None:
    assert str(LEVELS) in refusal(answering(nested(100_000))).reason


def test_a_refusal_says_who_refuses() -> None:
    assert "Vertex AI" in refusal(hello(tools=[{"codeExecution": {}}])).reason


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return max(map(levels, value), default=0) if isinstance(value, list) else 0


def objects(value: Any) -> list[dict[str, Any]]:
    """All objects in a value, itself included."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict) else []
    return own + [found for inner in inside for found in objects(inner)]


@settings(deadline=None, max_examples=300)
@given(BODIES)
def test_whatever_is_not_refused_holds_to_every_rule(body: dict[str, Any]) -> None:
    before = json.dumps(body)
    try:
        done = fitted(body)
    except InvalidRequest:
        return
    finally:
        assert json.dumps(body) == before
    types_found: dict[str, str] = {}
    for path, kind in walk(done):
        assert kind != "null"
        assert "[][]" not in path
        assert types_found.setdefault(path, kind) == kind
    assert len(types_found) == len({path.lower() for path in types_found})
    assert all(objects(done)), "the importer takes no empty object"
    assert levels(done) <= LEVELS
    assert fitted(done) is done
    assert Schemas().group(done) == 0
