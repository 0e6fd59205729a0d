"""The answers of the built-in models."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel
from tests.emulator.helpers import (
    CREATE,
    MODEL,
    PENDING,
    RUNNING,
    done,
    finished,
    inline_body,
    jsonl,
    prompt,
    rows_of,
    run_file,
)

from lowtide_emulator import Emulator, RowError


def answer(emulator: Emulator, http: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    body = {"batch": {"inputConfig": {"requests": {"requests": [{"request": request}]}}}}
    created = http.post(CREATE, json=body)
    assert created.status_code == 200, created.text
    emulator.advance(PENDING + RUNNING)
    operation = done(http, created.json()["name"])
    found: dict[str, Any] = operation["response"]["inlinedResponses"]["inlinedResponses"][0]
    return found


def text_of(row: dict[str, Any]) -> str:
    return str(row["response"]["candidates"][0]["content"]["parts"][0]["text"])


def finish_of(row: dict[str, Any]) -> str:
    return str(row["response"]["candidates"][0]["finishReason"])


def test_the_answer_is_the_first_words_of_the_prompt(emulator: Emulator, http: httpx.Client) -> None:
    long = " ".join(f"word{index}" for index in range(100))
    said = text_of(answer(emulator, http, prompt(long)))
    assert said == " ".join(f"word{index}" for index in range(25)) + "."


def test_the_same_prompt_gets_the_same_answer(emulator: Emulator, http: httpx.Client) -> None:
    assert answer(emulator, http, prompt("Tides")) == answer(emulator, http, prompt("Tides"))


def test_an_answer_longer_than_allowed_is_cut(emulator: Emulator, http: httpx.Client) -> None:
    request = prompt("one two three four five", generationConfig={"maxOutputTokens": 2})
    row = answer(emulator, http, request)
    assert text_of(row) == "one two "
    assert finish_of(row) == "MAX_TOKENS"


def test_json_is_answered_as_the_schema_wants(emulator: Emulator, client: genai.Client) -> None:
    class Tide(BaseModel):
        name: str
        metres: float
        days: list[int]
        kind: str | None

    job = client.batches.create(
        model=MODEL,
        src=[
            types.InlinedRequest(
                contents="High water at noon",
                config=types.GenerateContentConfig(response_mime_type="application/json", response_schema=Tide),
            )
        ],
    )
    emulator.advance(PENDING + RUNNING)
    over = finished(client, job)
    said = over.dest.inlined_responses[0].response.text
    assert Tide.model_validate_json(said).name == "High water at noon."


def test_a_json_schema_is_obeyed_too(emulator: Emulator, http: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"enum": ["small", "large"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 3},
            "yes": {"type": "boolean"},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "short": {"type": ["string", "null"], "maxLength": 2},
        },
    }
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    value = json.loads(text_of(answer(emulator, http, prompt("hello", generationConfig=config))))
    assert value["size"] in {"small", "large"}
    assert value["count"] == 3
    assert value["either"] is None
    assert value["short"] == "he"


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ("[[error:8]]", {"error": {"code": 8}}),
        ("[[status:13]]", {"status": {"code": 13}}),
        ("[[empty]]", {"response": {}}),
        ("[[null]]", {"response": None}),
        ("[[neither]]", {}),
    ],
)
def test_a_mark_replaces_the_response(
    emulator: Emulator, http: httpx.Client, mark: str, expected: dict[str, Any]
) -> None:
    row = answer(emulator, http, prompt(f"Please {mark} now"))
    for part in row.values():
        if part:
            part.pop("message", None)
    assert row == expected


@pytest.mark.parametrize(
    ("mark", "finish"),
    [
        ("[[safety]]", "SAFETY"),
        ("[[recitation]]", "RECITATION"),
        ("[[thoughts_only]]", "MAX_TOKENS"),
        ("[[no_parts]]", "STOP"),
    ],
)
def test_a_mark_takes_the_text_away(emulator: Emulator, http: httpx.Client, mark: str, finish: str) -> None:
    row = answer(emulator, http, prompt(f"Please {mark}"))
    assert finish_of(row) == finish
    assert "parts" not in row["response"]["candidates"][0]["content"]


def test_marks_for_half_an_answer_and_none_that_counts(emulator: Emulator, http: httpx.Client) -> None:
    assert finish_of(answer(emulator, http, prompt("Please [[max_tokens]] end"))) == "MAX_TOKENS"
    blocked = answer(emulator, http, prompt("[[blocked]]"))["response"]
    assert blocked["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT"
    assert "candidates" not in blocked
    assert "usageMetadata" not in answer(emulator, http, prompt("[[no_usage]]"))["response"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(answer(emulator, http, prompt("[[garbage]]"))))


def test_a_counted_mark_lets_the_retry_through(emulator: Emulator, http: httpx.Client) -> None:
    row = prompt("Try [[error:14:2]] me")
    assert "error" in answer(emulator, http, row)
    assert "error" in answer(emulator, http, row)
    assert "response" in answer(emulator, http, row)


def test_an_error_row_in_a_file_has_its_key(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl([("a", "[[error:8]]")]))
    row = rows_of(http, operation)[0]
    assert list(row) == ["error", "key"]
    assert row["error"]["code"] == 8


def test_a_function_can_be_the_model(emulator: Emulator, http: httpx.Client) -> None:
    def model(request: dict[str, Any]) -> dict[str, Any] | RowError:
        text = request["contents"][0]["parts"][0]["text"]
        if text == "bad":
            return RowError(code=7, message="no")
        if text == "broken":
            raise ZeroDivisionError
        return {"candidates": [{"content": {"parts": [{"text": text.upper()}]}}]}

    emulator.answer = model
    assert text_of(answer(emulator, http, prompt("loud"))) == "LOUD"
    assert answer(emulator, http, prompt("bad")) == {"error": {"code": 7, "message": "no"}}
    assert answer(emulator, http, prompt("broken"))["error"]["code"] == 13


def test_the_record_knows_which_rows_were_paid(emulator: Emulator, http: httpx.Client) -> None:
    rows = [("a", "one"), ("b", "[[error:8]]"), ("c", "three")]
    name = http.post(CREATE, json=inline_body(rows)).json()["name"]
    assert emulator.jobs(keys=True)[0].billed_keys == []
    emulator.advance(PENDING + RUNNING)
    done(http, name)
    record = http.get("/_emulator/jobs", params={"keys": 1}).json()[0]
    assert record["keys"] == ["a", "b", "c"]
    assert record["billed_keys"] == ["a", "c"]
    assert record["billed"] == 2
    assert "keys" not in http.get("/_emulator/jobs").json()[0]


def test_the_tokens_of_each_row_are_billed_by_model_and_modality(emulator: Emulator, http: httpx.Client) -> None:
    usage = {
        "promptTokenCount": 9,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}, {"modality": "TEXT", "tokenCount": 5}],
        "candidatesTokenCount": "3",
    }

    def model(request: dict[str, Any]) -> dict[str, Any] | RowError:
        text = request["contents"][0]["parts"][0]["text"]
        if text == "bad":
            return RowError(7, "no")
        odd = {"promptTokenCount": "x", "candidatesTokenCount": -1, "promptTokensDetails": [5]}
        return {"usageMetadata": odd if text == "odd" else usage, "modelVersion": "other" if text == "two" else None}

    emulator.answer = model
    rows = [(text, text) for text in ("one", "bad", "two", "three", "odd")]
    name = http.post(CREATE, json=inline_body(rows)).json()["name"]
    assert emulator.stats().billed_tokens == {}
    emulator.advance(PENDING + RUNNING)
    done(http, name)

    billed = {
        MODEL: {"candidates": {"TEXT": 6}, "prompt": {"AUDIO": 8, "TEXT": 10}},
        "other": {"candidates": {"TEXT": 3}, "prompt": {"AUDIO": 4, "TEXT": 5}},
    }
    assert emulator.stats().billed_tokens == billed
    assert emulator.jobs()[0].billed_tokens == billed
