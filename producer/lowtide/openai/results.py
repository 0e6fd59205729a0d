"""A result in the shape of a line of OpenAI's batch output."""

from __future__ import annotations

from typing import Any

import msgspec

from lowtide.models import Result, Usage

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_encode = msgspec.json.encode


def result_line(result: Result, *, batch_id: str, model: str, created: int) -> bytes:
    """One JSON object without a newline; its `custom_id` is the result's key.

    `created` is in Unix seconds, the batch's. A request without an answer has `error` with Lowtide's reason as `code`.
    """
    name = f"{batch_id}-{result.key}"
    line: dict[str, Any] = {"id": name, "custom_id": result.key, "response": None, "error": None}
    if result.response is None:
        error = result.error
        line["error"] = {
            "code": error.reason if error else result.status.upper(),
            "message": error.message if error else f"the request is {result.status}",
        }
        return _encode(line)
    body = _embedding(result) if "embedding" in result.response else _completion(result)
    model = str(result.response.get("modelVersion") or model)
    line["response"] = {
        "status_code": 200,
        "request_id": name,
        "body": {"id": name, "created": created, "model": model} | body,
    }
    return _encode(line)


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
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
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
