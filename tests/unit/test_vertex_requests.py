"""Requests to Vertex AI are the same as those of the SDK."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import _common, models, types
from tests.unit.bodies import generation, hello, shaped
from tests.unit.sdk import as_read

from lowtide import InvalidRequest, Request
from lowtide.shaping import Shaped, fields
from lowtide.shaping.vertex_import import fitted
from lowtide.states import Kind, ProviderName


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
    done = shaped(item, model="m", kind=kind, provider=ProviderName.VERTEX)
    assert isinstance(done, Shaped)
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
    done = shaped(Request(key="k", contents=contents), provider=ProviderName.VERTEX)
    assert json.loads(done.body) == sdk_request(contents, None)
    assert done.group == 0


def test_a_rest_request_for_vertex_may_hold_what_only_vertex_knows() -> None:
    config = {
        "routingConfig": {"manualMode": {"modelName": "m"}},
        "modelConfig": {"featureSelectionPreference": "BALANCED"},
        "audio_timestamp": False,
    }
    request = generation(**config) | {
        "modelArmorConfig": {"promptTemplateName": "a"},
        "outputConfig": {"outputUriPrefix": "gs://b/o"},
    }
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
    ({"contents": "a", "config": {"modelConfig": {"a": 1}}}, "config.modelConfig.a"),
    ({"contents": "a", "config": {"tools": [{"code_execution": {}}]}}, "config.tools[0].code_execution"),
    ({"contents": "a", "config": {"temperature": float("nan")}}, "config.temperature"),
    ({"request": hello(store=True)}, "request.store"),
    ({"request": hello(cached_content="a")}, "request.cached_content"),
    ({"request": hello(outputConfig={"a": 1}, output_config={"a": 1})}, "request.output_config"),
    ({"request": generation(modelSelectionConfig={})}, "request.generationConfig.modelSelectionConfig"),
    ({"request": generation(enableEnhancedCivicAnswers=True)}, "request.generationConfig.enableEnhancedCivicAnswers"),
]


@pytest.mark.parametrize(("item", "field"), REFUSED, ids=[f"{n}-{field}" for n, (_, field) in enumerate(REFUSED)])
def test_what_vertex_does_not_take_is_refused_with_its_field(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shaped({"key": "k", **item}, model="m", provider="vertex")
    assert caught.value.field == field


def test_options_of_an_image_have_the_places_of_the_wire_in_both_shapes() -> None:
    options = {"aspectRatio": "16:9", "output_mime_type": "image/png", "outputCompressionQuality": 80}
    expected = {
        "imageOutputOptions": {"mimeType": "image/png", "compressionQuality": 80},
        "aspectRatio": "16:9",
    }
    flat = sent({"key": "k", "contents": "a", "config": {"imageConfig": options}})
    rest = sent({"key": "k", "request": generation(imageConfig=options)})
    assert flat["generationConfig"]["imageConfig"] == rest["generationConfig"]["imageConfig"] == expected


_VERTEX_VALUES = {
    "routingconfig": {"manualMode": {"modelName": "m"}},
    "modelselectionconfig": {"featureSelectionPreference": "BALANCED"},
    "modelarmorconfig": {"promptTemplateName": "a"},
    "generationoutputconfig": {"outputUriPrefix": "gs://b/o"},
}


def test_every_field_that_only_vertex_knows_is_taken() -> None:
    for name in sorted(fields.VERTEX_ONLY):
        value = True if name in {"audio_timestamp", "audioTimestamp"} else _VERTEX_VALUES[name.replace("_", "").lower()]
        assert len(sent({"key": "k", "contents": "a", "config": {name: value}})) == 2


def test_the_developer_api_is_sent_what_the_importer_would_not_take() -> None:
    body = {"key": "k", "contents": "a", "config": {"tools": [{"google_search": {}}, {"code_execution": {}}]}}
    assert json.loads(shaped(body, model="m").body)["tools"] == [{"google_search": {}}, {"code_execution": {}}]
