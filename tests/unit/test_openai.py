"""Lines of OpenAI's batch files come in as requests, and results go out in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lowtide import InvalidRequest, Result, ResultError, ResultStatus, Usage
from lowtide.openai import is_line, result_line, translated
from lowtide.shaping.checking import problems

MODEL = "gemini-3.5-flash"
USER = {"role": "user", "content": "hi"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def chat(*messages: Any, **body: Any) -> dict[str, Any]:
    body = {"model": "gpt-5-mini", "messages": list(messages) or [USER], **body}
    return {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}


def request(line: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = translated(line, MODEL)["request"]
    assert problems(msgspec.json.encode(found)) == [], "Google would refuse it"
    return found


def test_a_line_is_known_by_its_custom_id_and_body() -> None:
    assert is_line(chat())
    assert not is_line({"key": "r1", "request": {}})
    assert not is_line({"custom_id": "r1", "request": {}})


def test_key_and_metadata_come_along() -> None:
    line = chat() | {"metadata": {"shop": "7"}}
    assert translated(line, MODEL) == {
        "key": "r1",
        "request": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        "metadata": {"shop": "7"},
    }


def test_roles_become_contents_and_a_system_instruction() -> None:
    found = request(
        chat(
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Speak French."},
            USER,
            {"role": "user", "content": [{"type": "text", "text": "again"}]},
            {"role": "assistant", "content": "Bonjour"},
            USER,
        )
    )
    assert found["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Speak French."}]}
    assert found["contents"] == [
        {"role": "user", "parts": [{"text": "hi"}, {"text": "again"}]},
        {"role": "model", "parts": [{"text": "Bonjour"}]},
        {"role": "user", "parts": [{"text": "hi"}]},
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://shop.example/kettle.jpg?size=2"}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://shop.example/kettle.jpg?size=2"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "gs://bucket/kettle.webp"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "gs://bucket/kettle.webp"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
        ),
    ],
    ids=str,
)
def test_media_become_parts(part: dict[str, Any], expected: dict[str, Any]) -> None:
    found = request(chat({"role": "user", "content": [{"type": "text", "text": "see"}, part]}))
    assert found["contents"][0]["parts"] == [{"text": "see"}, expected]


def test_calls_and_their_answers_keep_their_names() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    found = request(
        chat(
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        )
    )
    assert found["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"output": "rain"}}}]},
    ]


def test_tools_and_the_choice_among_them() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": WEATHER}}
    choice = {"type": "function", "function": {"name": "weather"}}
    found = request(chat(tools=[tool], tool_choice=choice))
    assert found["tools"] == [
        {"functionDeclarations": [{"name": "weather", "description": "Now", "parametersJsonSchema": WEATHER}]}
    ]
    assert found["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0.2, "top_p": 0.9, "seed": 7}, {"temperature": 0.2, "topP": 0.9, "seed": 7}),
        ({"max_tokens": 50}, {"maxOutputTokens": 50}),
        ({"max_completion_tokens": 50, "n": 2}, {"maxOutputTokens": 50, "candidateCount": 2}),
        ({"stop": "END"}, {"stopSequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stopSequences": ["A", "B"]}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"reasoning_effort": "high"}, {"thinkingConfig": {"thinkingLevel": "HIGH"}}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}},
            {"responseMimeType": "application/json", "responseJsonSchema": WEATHER},
        ),
        ({"user": "u", "store": False, "stream": False, "temperature": None}, None),
        ({"response_format": {"type": "text"}}, None),
    ],
    ids=str,
)
def test_parameters_become_those_of_gemini(given: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert request(chat(**given)).get("generationConfig") == expected


def test_an_embedding_is_one_text() -> None:
    line = {"custom_id": "e1", "url": "/v1/embeddings", "body": {"input": "kettle", "dimensions": 256}}
    assert translated(line, MODEL)["request"] == {
        "content": {"parts": [{"text": "kettle"}]},
        "outputDimensionality": 256,
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    (chat(stream=True), "body.stream"),
    (chat(web_search_options={}), "body.web_search_options"),
    (chat(reasoning_effort="gigantic"), "body.reasoning_effort"),
    (chat(tool_choice="maybe"), "body.tool_choice"),
    (chat(tools=[{"type": "web_search"}]), "body.tools[0]"),
    (chat(response_format={"type": "xml"}), "body.response_format"),
    (chat({"role": "system", "content": "alone"}), "body.messages"),
    (chat({"role": "wizard", "content": "x"}), "body.messages[0].role"),
    (chat({"role": "user", "content": []}), "body.messages[0].content"),
    (chat({"role": "user", "content": [{"type": "video"}]}), "body.messages[0].content[0]"),
    (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/x"}}]}),
        "body.messages[0].content[0].image_url",
    ),
    (chat(USER, {"role": "tool", "tool_call_id": "c9", "content": "x"}), "body.messages[1].tool_call_id"),
    (chat() | {"url": "/v1/responses"}, "url"),
    (chat() | {"extra": 1}, "extra"),
    (chat() | {"body": []}, "body"),
    (chat(model="gemini-3.8-flash"), "body.model"),
    ({"custom_id": "e", "url": "/v1/embeddings", "body": {"input": ["a", "b"]}}, "body.input"),
]


@pytest.mark.parametrize(("line", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_has_no_equivalent_is_refused_with_its_field(line: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        translated(line, MODEL)
    assert caught.value.field == field


def output(result: Result) -> dict[str, Any]:
    line: dict[str, Any] = msgspec.json.decode(result_line(result, batch_id="b1", model=MODEL, created=17))
    return line


def test_an_answer_is_a_chat_completion() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "Hello"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]
    response = {
        "candidates": [
            {"content": {"parts": parts}, "finishReason": "STOP"},
            {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "MAX_TOKENS"},
            {"finishReason": "SAFETY"},
        ],
        "modelVersion": "gemini-3.5-flash-002",
    }
    usage = Usage(prompt_token_count=3, candidates_token_count=4, thoughts_token_count=5, total_token_count=12)
    line = output(Result(key="r1", status=ResultStatus.SUCCEEDED, response=response, usage=usage))
    assert (line["custom_id"], line["error"], line["response"]["status_code"]) == ("r1", None, 200)
    body = line["response"]["body"]
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", 17, "gemini-3.5-flash-002")
    assert [choice["finish_reason"] for choice in body["choices"]] == ["tool_calls", "length", "content_filter"]
    first = body["choices"][0]["message"]
    assert first["content"] == "Hello"
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}


def test_a_vector_is_an_embedding() -> None:
    result = Result(key="e1", status=ResultStatus.SUCCEEDED, response={"embedding": {"values": [1, 0.5]}})
    body = output(result)["response"]["body"]
    assert (body["object"], body["data"][0]["embedding"]) == ("list", [1.0, 0.5])


def test_a_request_without_an_answer_has_an_error() -> None:
    error = ResultError(reason="SAFETY", message="blocked")
    line = output(Result(key="r1", status=ResultStatus.FAILED, error=error))
    assert (line["response"], line["error"]) == (None, {"code": "SAFETY", "message": "blocked"})


def test_a_blocked_prompt_has_an_error_and_no_choice_that_is_not_there() -> None:
    error = ResultError(reason="PROHIBITED_CONTENT", message="blocked")
    response = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": MODEL}
    line = output(Result(key="r1", status=ResultStatus.FAILED, response=response, error=error))
    assert (line["response"], line["error"]["code"]) == (None, "PROHIBITED_CONTENT")


@pytest.mark.parametrize(
    ("finish", "reason", "error"),
    [
        ("SAFETY", "SAFETY", {"code": "SAFETY", "message": "the answer was withheld"}),
        ("STOP", "EMPTY", {"code": "EMPTY", "message": "the answer was withheld"}),
        ("MAX_TOKENS", "MAX_TOKENS", None),
        ("CONTINUATION", "CONTINUATION", None),
        ("CONTINUATION", "CANCELLED", {"code": "CANCELLED", "message": "the answer was withheld"}),
    ],
)
def test_an_answer_that_failed_has_its_reason_as_an_error_beside_it_unless_it_is_only_short(
    finish: str, reason: str, error: dict[str, str] | None
) -> None:
    why = ResultError(reason=reason, message="the answer was withheld")
    response = {"candidates": [{"finishReason": finish}], "modelVersion": MODEL}
    line = output(Result(key="r1", status=ResultStatus.FAILED, response=response, error=why))
    assert line["error"] == error
    assert line["response"]["status_code"] == 200


def test_an_answer_that_an_outcome_accepts_has_no_error() -> None:
    line = output(
        Result(key="r1", status=ResultStatus.SUCCEEDED, response={"candidates": [{"finishReason": "SAFETY"}]})
    )
    assert line["error"] is None
    assert line["response"]["body"]["choices"][0]["finish_reason"] == "content_filter"
