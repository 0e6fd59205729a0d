"""The answers of the built-in model to requests for functions, values and images."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from tests.emulator.helpers import prompt

from lowtide_emulator.answering import RowError, TextModel, sample

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "OBJECT",
        "properties": {
            "city": {"type": "STRING"},
            "unit": {"type": "STRING", "enum": ["C", "F"]},
            "days": {"type": "INTEGER"},
        },
        "required": ["city"],
    },
}
TIDES = {"name": "get_tides", "parametersJsonSchema": {"type": "object", "properties": {"port": {"type": "string"}}}}
NOW = {"name": "get_time"}
TOOLS = [{"functionDeclarations": [WEATHER, TIDES]}, {"function_declarations": [NOW]}]


def answer(request: dict[str, Any], model: str = "gemini-3.5-flash") -> dict[str, Any]:
    reply = TextModel(model, Counter()).reply("k", msgspec.Raw(json.dumps(request).encode()))
    assert not isinstance(reply, RowError)
    found: dict[str, Any] = json.loads(msgspec.json.encode(reply))
    return found


def parts(request: dict[str, Any], model: str = "gemini-3.5-flash") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(request, model)["candidates"][0]["content"]["parts"]
    return found


def calling(mode: str, *names: str) -> dict[str, Any]:
    return {"functionCallingConfig": {"mode": mode, "allowedFunctionNames": list(names)}}


def test_mode_any_is_answered_by_a_call_with_arguments_of_the_schema() -> None:
    (part,) = parts(prompt("Is it warm in Oslo?", tools=TOOLS, toolConfig=calling("ANY")))
    assert part["functionCall"]["name"] == "get_weather"
    args = part["functionCall"]["args"]
    assert isinstance(args["city"], str)
    assert args["unit"] in {"C", "F"}
    assert isinstance(args["days"], int)


def test_only_an_allowed_function_is_called() -> None:
    (part,) = parts(prompt("hi", tools=TOOLS, tool_config=calling("any", "get_tides")))
    assert part["functionCall"]["name"] == "get_tides"
    assert set(part["functionCall"]["args"]) == {"port"}


def test_a_text_that_names_a_function_asks_for_its_call() -> None:
    (part,) = parts(prompt("Please use get_time now", tools=TOOLS))
    assert part["functionCall"] == {"name": "get_time", "args": {}}


@pytest.mark.parametrize(
    "request_of_one",
    [
        prompt("Is it warm in Oslo?", tools=TOOLS),
        prompt("Please use get_time", tools=TOOLS, toolConfig=calling("NONE")),
        prompt("Please use get_time", tools=[{"googleSearch": {}}]),
        prompt("Please use get_timetable", tools=TOOLS),
    ],
    ids=["not named", "mode NONE", "no functions", "a longer word"],
)
def test_another_text_is_answered_by_text(request_of_one: dict[str, Any]) -> None:
    assert list(parts(request_of_one)[0]) == ["text"]


def test_the_result_of_a_function_is_answered_by_text() -> None:
    request = {
        "contents": [
            {"role": "user", "parts": [{"text": "Please use get_time"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "get_time", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "get_time", "response": {"time": "noon"}}}]},
        ],
        "tools": TOOLS,
    }
    assert list(parts(request)[0]) == ["text"]


def test_an_enum_is_answered_by_the_bare_choice() -> None:
    config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["high", "low"]}}
    assert parts(prompt("Which tide?", generationConfig=config))[0]["text"] in {"high", "low"}


@pytest.mark.parametrize(
    ("modalities", "kinds"),
    [
        (["IMAGE"], ["inlineData"]),
        (["TEXT", "IMAGE"], ["text", "inlineData"]),
        (["TEXT"], ["text"]),
        ([2], ["inlineData"]),
    ],
)
def test_a_request_for_images_gets_one(modalities: list[Any], kinds: list[str]) -> None:
    found = parts(prompt("A wave", generationConfig={"response_modalities": modalities}))
    assert [next(iter(part)) for part in found] == kinds


def test_a_model_for_images_gives_text_and_image() -> None:
    text, image = parts(prompt("A wave"), "gemini-3.5-flash-image")
    assert text["text"] == "A wave."
    assert image["inlineData"]["mimeType"] == "image/png"
    data = base64.b64decode(image["inlineData"]["data"])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    other = parts(prompt("A beach"), "gemini-3.5-flash-image")[1]
    assert other != image


class Kind(Enum):
    HIGH = "high"
    LOW = "low"


class Node(BaseModel):
    name: Annotated[str, Field(min_length=3, max_length=8)]
    children: list[Node] = []
    parent: Node | None = None


class Everything(BaseModel):
    node: Node
    kind: Kind
    fixed: Literal[5]
    either: bool | int
    above: Annotated[int, Field(gt=100)]
    below: Annotated[float, Field(lt=1)]
    two: Annotated[list[str], Field(min_length=2, max_length=2)]
    none: Annotated[list[str], Field(max_length=0)]
    pair: tuple[int, str]
    by_name: dict[str, float]
    when: datetime
    day: date
    known: UUID
    anything: Any


@given(text=st.text(max_size=30))
def test_a_value_is_valid_for_its_schema(text: str) -> None:
    Everything.model_validate_json(json.dumps(sample(Everything.model_json_schema(), text)))


def test_a_cycle_has_its_end_in_an_optional_field() -> None:
    optional: dict[str, Any] = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "next": {"$ref": "#"}},
        "required": ["n"],
    }
    value = sample(optional, "x")
    assert isinstance(value, dict)
    assert value["n"] == 1
    ending: dict[str, Any] = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    assert isinstance(sample(ending, "x"), dict)


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#/$defs/Nothing"}, {"properties": {"next": {"$ref": "#"}}, "required": ["next"]}],
    ids=["a reference to nothing", "a cycle without an end"],
)
def test_a_reference_without_an_end_is_an_error(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the reference"):
        sample(schema, "x")


def test_the_schemas_of_vertex_have_references_too() -> None:
    assert sample({"defs": {"A": {"type": "INTEGER", "minimum": 7, "maximum": 7}}, "ref": "#/defs/A"}, "x") == 7


def continued(text: str, **more: Any) -> tuple[str, str, str | None]:
    (candidate,) = answer(prompt(text, **more))["candidates"]
    return candidate["content"]["parts"][0]["text"], candidate["finishReason"], candidate.get("continuationToken")


@pytest.mark.parametrize(("mark", "count"), [("[[continuation]]", 2), ("[[continuation:3]]", 3)])
def test_an_answer_in_parts_goes_on_with_the_token_of_the_part_before(mark: str, count: int) -> None:
    text = f"Tell the long story of the tides. {mark}"
    found = [continued(text)]
    while token := found[-1][2]:
        found.append(continued(text, continuationToken=token))
        assert found[-1] == continued(text, continuation_token=token)
    assert [finish for _, finish, _ in found] == ["CONTINUATION"] * (count - 1) + ["STOP"]
    assert "".join(said for said, _, _ in found) == f"{text}."
    assert all(said for said, _, _ in found)


@pytest.mark.parametrize("token", ["eA==", "no base64", base64.b64encode(b"part-9").decode()])
def test_a_token_that_was_never_returned_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"token|base64"):
        answer(prompt("Tell it. [[continuation]]", continuationToken=token))
