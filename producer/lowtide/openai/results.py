"""A result in the shape of a line of OpenAI's batch output."""

from __future__ import annotations

from typing import Any

import msgspec

from lowtide.models import Result, ResultError, Usage
from lowtide.states import ResultStatus

_CUT = "length"
_FINISH = {"STOP": "stop", "MAX_TOKENS": _CUT, "CONTINUATION": _CUT}
_encode = msgspec.json.encode


def result_line(result: Result, *, batch_id: str, model: str, created: int) -> bytes:
    """Returns a result as a line of OpenAI's batch output: one JSON object without a newline.

    - `result`: the result. Its key becomes the `custom_id`.
    - `batch_id`: the id of its batch, from which the line's `id` and `request_id` are made.
    - `model`: the model of the batch. The body names it where the answer names none.
    - `created`: when the batch was submitted, in Unix seconds.

    An answer is the body of a chat completion or an embedding, with the status code 200. A result that did not succeed
    has an `error` with the reason of its `ResultError` as `code`, also beside an answer that was withheld. An answer
    that was cut short has none, because its `finish_reason` says so: `length`.

    Source: https://platform.openai.com/docs/api-reference/batch/request-output
    """
    name = f"{batch_id}-{result.key}"
    line: dict[str, Any] = {"id": name, "custom_id": result.key, "response": None, "error": None}
    response = result.response or {}
    candidates = response.get("candidates")
    if result.status is not ResultStatus.SUCCEEDED and not _is_cut(candidates, result.error):
        error = result.error
        line["error"] = {
            "code": error.reason if error else result.status.upper(),
            "message": error.message if error else f"the request is {result.status}",
        }
    # A blocked prompt has a response without a candidate, which no client expects among choices.
    if not (candidates or "embedding" in response):
        return _encode(line)
    body = _embedding(result) if "embedding" in response else _completion(result)
    model = str(response.get("modelVersion") or model)
    line["response"] = {
        "status_code": 200,
        "request_id": name,
        "body": {"id": name, "created": created, "model": model} | body,
    }
    return _encode(line)


def _is_cut(candidates: Any, error: ResultError | None) -> bool:
    """Whether the length of the answer is the reason of its error, and not for example a cancel in the middle of it."""
    match candidates:
        case [{"finishReason": str(reason)}, *_]:
            return _FINISH.get(reason) == _CUT and (error is None or error.reason == reason)
    return False


def _completion(result: Result) -> dict[str, Any]:
    candidates = (result.response or {}).get("candidates")
    choices = [_choice(index, one) for index, one in enumerate(candidates if isinstance(candidates, list) else [])]
    return {"object": "chat.completion", "choices": choices, "usage": _usage(result.usage)}


def _choice(index: int, candidate: Any) -> dict[str, Any]:
    match candidate:
        case {"content": {"parts": [*found]}}:
            parts = [part for part in found if isinstance(part, dict) and not part.get("thought")]
        case _:
            parts = []
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": call.get("name"),
                "arguments": _encode(call.get("args") or {}).decode(),
            },
        }
        for number, call in enumerate(
            part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)
        )
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    reason = candidate.get("finishReason") if isinstance(candidate, dict) else None
    finish = "tool_calls" if calls else _FINISH.get(str(reason), "content_filter")
    return {"index": index, "message": message, "finish_reason": finish}


def _embedding(result: Result) -> dict[str, Any]:
    data = [{"object": "embedding", "index": 0, "embedding": result.vector}]
    return {"object": "list", "data": data, "usage": _usage(result.usage)}


def _usage(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.prompt_token_count,
        "completion_tokens": usage.candidates_token_count + usage.thoughts_token_count,
        "total_tokens": usage.total_token_count,
    }
