from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import _common, models, types
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.unit.sdk import as_read

from lowtide import InvalidRequest, Request, fields
from lowtide.importer import Schemas, fitted
from lowtide.importer_types import FIELDS, LEVELS
from lowtide.normalise import Normalised, for_importer, normalise
from lowtide.states import Kind, ProviderName


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
}


@pytest.mark.parametrize("body", FITS.values(), ids=FITS)
def test_what_fits_is_passed_as_the_very_same_object(body: dict[str, Any]) -> None:
    assert fitted(body) is body
    assert fitted(body) is body  # the second time from what is known of the first
    assert Schemas().group(body) == 0


# What says nothing is left out.

RECIPE = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
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
}  # fmt: skip


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
    (hello(tools=[{"googleSearch": {}}]), "request.tools[0].googleSearch"),
    (hello(tools=[{"urlContext": {"a": 1}}, {"code_execution": {}}]), "request.tools[1].code_execution"),
    (hello(tools=[{"googleSearch": {"excludeDomains": []}}]), "request.tools[0].googleSearch"),
    (hello(tools=[{"googleSearch": {"timeRangeFilter": None}}]), "request.tools[0].googleSearch"),
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
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), BAD, ids=[f"{number}" for number, _ in enumerate(BAD)])
def test_what_the_importer_refuses_is_refused_with_its_field(body: dict[str, Any], field: str) -> None:
    for _ in range(2):
        error = refusal(body)
        assert error.field == field
        assert error.reason


def test_references_that_grow_without_bounds_are_refused_while_it_is_cheap() -> None:
    definitions = {
        f"L{n}": {"anyOf": [{"$ref": f"#/$defs/L{n + 1}"}] * 20} for n in range(12)
    } | {"L12": {"type": "string"}}  # fmt: skip
    assert "keywords" in refusal(json_schema(**{"$defs": definitions, "$ref": "#/$defs/L0"})).reason


def test_nesting_beyond_the_interpreter_is_refused_like_any_other() -> None:
    assert str(LEVELS) in refusal(answering(nested(100_000))).reason


def test_a_refusal_says_who_refuses() -> None:
    assert "Vertex AI" in refusal(hello(tools=[{"googleSearch": {}}])).reason


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
BODIES = st.dictionaries(NAMES, JSON, min_size=1, max_size=4) | st.builds(answering, JSON) | st.builds(
    lambda schema: json_schema(**schema), st.dictionaries(NAMES, JSON, max_size=3)
)  # fmt: skip


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


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return max(map(levels, value), default=0) if isinstance(value, list) else 0


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
    assert "{}" not in json.dumps(done)
    assert levels(done) <= LEVELS
    assert fitted(done) is done
    assert Schemas().group(done) == 0


# Which requests share a job.


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


# What the SDK would send to Vertex AI.


@cache
def vertex() -> genai.Client:
    return genai.Client(vertexai=True, project="p", location="l", credentials=AnonymousCredentials())


def sdk_request(contents: Any, config: Any) -> Any:
    """The GenerateContentRequest that the SDK sends, with what the importer cannot take left out."""
    parameters = types._GenerateContentParameters(model="m", contents=contents, config=config)
    body = models._GenerateContentParameters_to_vertex(vertex()._api_client, parameters)
    body.pop("_url")
    return fitted(as_read(json.loads(json.dumps(_common.encode_unserializable_types(_common.convert_to_dict(body))))))


def sent(item: object, kind: Kind = Kind.GENERATION) -> Any:
    done = normalise(item, model="m", kind=kind, provider=ProviderName.VERTEX)
    assert isinstance(done, Normalised)
    return json.loads(done.body)


CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "numbers": {"temperature": 0.5, "top_k": 40, "seed": 0},
    "a system instruction": {"system_instruction": "Be brief."},
    "routing": {"routing_config": {"manual_mode": {"model_name": "m"}}},
    "a choice of models": {"model_selection_config": {"feature_selection_preference": "BALANCED"}},
    "audio": {"audio_timestamp": True},
    "model armor": {"model_armor_config": {"prompt_template_name": "projects/p/locations/l/templates/t"}},
    "an output": {"generation_output_config": {"output_uri_prefix": "gs://b/o"}},
    "an image": {
        "image_config": {"aspect_ratio": "1:1", "output_mime_type": "image/png", "output_compression_quality": 7}
    },
    "labels": {"labels": {"team": "shop"}, "service_tier": "flex"},
    "speech": {"speech_config": "Kore"},
    "a schema object": {"response_schema": types.Schema(type=types.Type.STRING)},
    "functions": {"tools": [{"function_declarations": [{"name": "f", "description": "d"}]}]},
    "safety": {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("form", [dict, lambda config: types.GenerateContentConfig(**config)], ids=["dict", "object"])
def test_a_config_for_vertex_is_sent_as_the_sdk_sends_it(config: dict[str, Any], form: Callable[[Any], Any]) -> None:
    assert as_read(sent(Request(key="k", contents="hello", config=form(config)))) == sdk_request("hello", config)


def test_contents_of_sdk_objects_are_plain_data_afterwards() -> None:
    contents = [types.Part.from_uri(file_uri="gs://b/a.png", mime_type="image/png"), "what is this?"]
    done, body = for_importer(Request(key="k", contents=contents), model="m")
    assert json.loads(done.body) == body == sdk_request(contents, None)
    assert Schemas().group(body) == 0


def test_a_rest_request_for_vertex_may_hold_what_only_vertex_knows() -> None:
    config = {"routingConfig": {"manualMode": {"modelName": "m"}}, "modelConfig": {"a": "b"}, "audio_timestamp": False}
    request = generation(**config) | {"modelArmorConfig": {"promptTemplateName": "a"}, "outputConfig": {"x": "y"}}
    assert sent({"key": "k", "request": request}) == request


@pytest.mark.parametrize("name", ["m", "models/m", "publishers/google/models/m"])
def test_a_rest_request_for_vertex_may_name_the_batchs_model(name: str) -> None:
    assert sent({"key": "k", "request": hello(model=name)}) == hello()


def test_vertex_is_given_the_roles_that_the_developer_api_takes_for_granted() -> None:
    parts: list[Any] = [{"text": "a"}, {"functionCall": {"name": "f"}}]
    body = sent({"key": "k", "request": {"contents": [{"parts": [part]} for part in parts]}})
    assert [content["role"] for content in body["contents"]] == ["user", "model"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"contents": "a", "config": {"store": True}}, "config.store"),
    ({"contents": "a", "config": {"cachedContent": "a"}}, "config.cachedContent"),
    ({"contents": "a", "config": {"enable_enhanced_civic_answers": True}}, "config.enable_enhanced_civic_answers"),
    ({"contents": "a", "config": {"modelConfig": {"a": 1}}}, "config.modelConfig"),
    ({"contents": "a", "config": {"tools": [{"google_search": {}}]}}, "request.tools[0].google_search"),
    ({"contents": "a", "config": {"temperature": float("nan")}}, "request.generationConfig.temperature"),
    ({"request": hello(store=True)}, "request.store"),
    ({"request": hello(cached_content="a")}, "request.cached_content"),
    ({"request": hello(outputConfig={"a": 1}, output_config={"a": 1})}, "request.output_config"),
    ({"request": generation(modelSelectionConfig={})}, "request.generationConfig.modelSelectionConfig"),
    ({"request": generation(enableEnhancedCivicAnswers=True)}, "request.generationConfig.enableEnhancedCivicAnswers"),
]


@pytest.mark.parametrize(("item", "field"), REFUSED, ids=[f"{n}-{field}" for n, (_, field) in enumerate(REFUSED)])
def test_what_vertex_does_not_take_is_refused_with_its_field(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalise({"key": "k", **item}, model="m", provider="vertex")
    assert caught.value.field == field


def test_every_field_that_only_vertex_knows_is_taken() -> None:
    for name in sorted(fields.VERTEX_ONLY):
        assert len(sent({"key": "k", "contents": "a", "config": {name: {"a": 1}}})) == 2


def test_the_developer_api_is_sent_what_the_importer_would_not_take() -> None:
    body = {"key": "k", "contents": "a", "config": {"tools": [{"google_search": {}}]}}
    assert json.loads(normalise(body, model="m").body)["tools"] == [{"google_search": {}}]
