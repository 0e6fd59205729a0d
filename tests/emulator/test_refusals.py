"""Calls that the service refuses, and its error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from google import genai
from google.genai import errors
from tests.emulator.helpers import (
    CREATE,
    MODEL,
    PENDING,
    RUNNING,
    done,
    file_body,
    inline_body,
    jsonl,
    numbered,
    prompt,
    run_file,
    upload,
)
from tests.waiting import wait_until

from lowtide_emulator import Emulator, Settings


@pytest.fixture
def strict() -> Iterator[Emulator]:
    settings = Settings(
        api_keys=frozenset({"right"}),
        models=frozenset({"house-model"}),
        pending_seconds=60,
        max_active_jobs=2,
        max_inline_bytes=5_000,
        max_file_bytes=10_000,
    )
    with Emulator(settings) as emulator:
        yield emulator


@pytest.fixture
def strict_http(strict: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=strict.url, headers={"x-goog-api-key": "right"}) as client:
        yield client


def test_a_wrong_key_is_a_400(strict: Emulator) -> None:
    with (
        genai.Client(api_key="wrong", http_options={"base_url": strict.url}) as client,
        pytest.raises(errors.ClientError) as caught,
    ):
        client.batches.get(name="batches/x")
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


def test_an_unknown_model_is_a_404(http: httpx.Client, strict_http: httpx.Client) -> None:
    path = "/v1/models/house-model:batchGenerateContent"
    refused = http.post(path, json=inline_body(numbered(1)))
    assert refused.status_code == 404
    assert refused.json()["error"]["status"] == "NOT_FOUND"
    assert strict_http.post(path, json=inline_body(numbered(1))).status_code == 200


def test_more_live_jobs_than_allowed_are_a_429(strict: Emulator, strict_http: httpx.Client) -> None:
    for _ in range(2):
        assert strict_http.post(CREATE, json=inline_body(numbered(1))).status_code == 200
    refused = strict_http.post(CREATE, json=inline_body(numbered(1)))
    assert refused.status_code == 429
    assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert len(strict.jobs()) == 2
    strict.advance(60)
    wait_until(lambda: not any(job.live for job in strict.jobs()))
    assert strict_http.post(CREATE, json=inline_body(numbered(1))).status_code == 200


def test_a_body_too_large_is_a_400(strict_http: httpx.Client) -> None:
    refused = strict_http.post(CREATE, json=inline_body(numbered(100)))
    assert refused.status_code == 400
    assert "payload size exceeds the limit: 5000 bytes" in refused.json()["error"]["message"]


def test_a_file_too_large_is_a_400(strict: Emulator) -> None:
    with (
        genai.Client(api_key="right", http_options={"base_url": strict.url}) as client,
        pytest.raises(errors.ClientError) as caught,
    ):
        upload(client, b"x" * 10_001)
    assert caught.value.code == 400


def test_a_file_that_does_not_exist_is_a_403(http: httpx.Client) -> None:
    for refused in (
        http.post(CREATE, json=file_body("files/nothing")),
        http.get("/v1/files/nothing"),
        http.delete("/v1/files/nothing"),
        http.get("/v1/files/nothing:download"),
        http.get("/download/v1/files/batch-nothing:download"),
    ):
        assert refused.status_code == 403
        assert refused.json()["error"]["status"] == "PERMISSION_DENIED"


def test_a_file_still_processing_cannot_be_used_yet() -> None:
    settings = Settings(file_processing_seconds=30)
    with (
        Emulator(settings) as emulator,
        genai.Client(api_key="any", http_options={"base_url": emulator.url}) as client,
    ):
        name = upload(client, jsonl(numbered(1)))
        state = client.files.get(name=name).state
        assert state is not None
        assert state.value == "PROCESSING"
        with pytest.raises(errors.ClientError) as caught:
            client.batches.create(model=MODEL, src=name)
        assert (caught.value.code, caught.value.status) == (400, "FAILED_PRECONDITION")
        emulator.advance(30)
        client.batches.create(model=MODEL, src=name)


def test_a_result_file_has_no_record(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(1)))
    result = operation["response"]["responsesFile"]
    for refused in (http.get(f"/v1/{result}"), http.delete(f"/v1/{result}")):
        assert refused.status_code == 400
        assert "cannot be more than 40 characters" in refused.json()["error"]["message"]


BAD_LINES = {
    "not JSON": (b'{"key":"a","request":', "not valid JSON"),
    "unknown row field": (
        b'{"key":"a","custom_id":"b","request":{}}',
        "no such field: 'custom_id'",
    ),
    "no request": (b'{"key":"a"}', "missing required field 'request'"),
    "flat config of the SDK": (
        b'{"key":"a","request":{"contents":[],"config":{"temperature":1}}}',
        "no such field: 'config' at 'request'",
    ),
    "parameter outside of generationConfig": (
        b'{"key":"a","request":{"contents":[],"thinking_config":{}}}',
        "no such field: 'thinking_config' at 'request'",
    ),
    "unknown parameter": (
        b'{"key":"a","request":{"contents":[],"generation_config":{"temprature":1}}}',
        "no such field: 'temprature' at 'request.generation_config'",
    ),
    "unknown part": (
        b'{"key":"a","request":{"contents":[{"parts":[{"txt":"hi"}]}]}}',
        "no such field: 'txt' at 'request.contents[0].parts[0]'",
    ),
    "contents as a string": (b'{"key":"a","request":{"contents":"hi"}}', "Invalid value at 'request.contents' ("),
    "key as a number": (b'{"key":1,"request":{"contents":[]}}', "Invalid value at 'key' (TYPE_STRING), 1"),
    "nested too deeply": (b'{"key":"a","request":' + b'{"contents":' * 100_000 + b"1" + b"}" * 100_001, "too deep"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_refuses_the_whole_file(
    emulator: Emulator, client: genai.Client, http: httpx.Client, case: str
) -> None:
    line, words = BAD_LINES[case]
    name = upload(client, jsonl(numbered(2)) + line + b"\n")
    refused = http.post(CREATE, json=file_body(name))
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "line 3" in message
    assert words in message
    assert emulator.jobs() == []


def test_a_bad_inline_row_refuses_the_whole_call(emulator: Emulator, http: httpx.Client) -> None:
    row = {"request": prompt("hi", config={}), "metadata": {"key": "a"}}
    body = {"batch": {"inputConfig": {"requests": {"requests": [row]}}}}
    refused = http.post(CREATE, json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    place = "batch.input_config.requests.requests[0].request"
    assert f"Unknown name \"config\" at '{place}': Cannot find field." in error["message"]
    assert error["details"][0]["fieldViolations"] == [{"field": place, "description": error["message"]}]
    assert emulator.jobs() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"batch":{}}', b'{"batch":{"nonsense":1}}', b'{"src":"files/x"}'],
)
def test_a_bad_create_body_is_a_400(emulator: Emulator, http: httpx.Client, body: bytes) -> None:
    refused = http.post(CREATE, content=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert emulator.jobs() == []


def test_an_empty_file_is_a_400(client: genai.Client, http: httpx.Client) -> None:
    refused = http.post(CREATE, json=file_body(upload(client, b"\n")))
    assert refused.status_code == 400
    assert "no requests" in refused.json()["error"]["message"]


def test_a_path_without_a_version_is_a_404(http: httpx.Client) -> None:
    for path in ("/v2/batches", "/batches", "/v1/nothing", "/v1/batches/"):
        refused = http.get(path)
        assert refused.status_code == 404
        assert refused.json()["error"]["status"] == "NOT_FOUND"


def test_a_meaningless_role_fails_only_its_row(emulator: Emulator, http: httpx.Client) -> None:
    rows = [
        {"request": {"contents": [{"role": "pilot", "parts": [{"text": "hi"}]}]}},
        {"request": {"contents": []}},
        {"request": {"contents": [{"parts": []}]}},
        {"request": prompt("hi", generationConfig={"maxOutputTokens": 0})},
    ]
    body = {"batch": {"inputConfig": {"requests": {"requests": rows}}}}
    name = http.post(CREATE, content=json.dumps(body)).json()["name"]
    emulator.advance(PENDING + RUNNING)
    answers = done(http, name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert [answer["error"]["code"] for answer in answers] == [3, 3, 3, 3]
