"""What a row of output means: the one table that turns a provider's answer into a request's outcome.

| the row has | outcome |
|---|---|
| a candidate that finished (STOP, or no reason given) with content, or an embedding | succeeded |
| an error with code 1, 4, 8, 10, 13, 14 (gRPC) or 408, 409, 429, 499, 500, 502, 503, 504 (HTTP) | retry |
| any other error | failed, with the provider's reason |
| a prompt that was blocked (`promptFeedback.blockReason`) | failed, with the block reason |
| a candidate that ended for any other reason (MAX_TOKENS, SAFETY, RECITATION, ...) | failed, with the finish reason |
| no response at all, none but an empty one, or a candidate without content | retry |

`retry` becomes `failed` when the request has no attempt left. A failed row keeps the response it came with.
Source: https://ai.google.dev/api/generate-content (FinishReason, BlockReason), google.rpc.Code.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from lowtide.models import ResultError, Usage
from lowtide.states import ResultStatus
from lowtide_worker.providers import OutputRow

RETRYABLE_CODES = frozenset({1, 4, 8, 10, 13, 14, 408, 409, 429, 499, 500, 502, 503, 504})
_FINISHED = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})


class Outcome(NamedTuple):
    """What became of a request in one job."""

    status: ResultStatus
    error: ResultError | None
    usage: Usage | None
    retryable: bool = False


_NULL = msgspec.Raw(b"null")


class _Content(msgspec.Struct, frozen=True):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, frozen=True, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _PromptFeedback(msgspec.Struct, frozen=True, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
"""The provider's int32: sums of them fit what Redis counts with."""


class _UsageMetadata(msgspec.Struct, frozen=True, rename="camel"):
    prompt_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None
    tool_use_prompt_token_count: _Count | None = None
    total_token_count: _Count | None = None


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    usage_metadata: msgspec.Raw = _NULL
    embedding: msgspec.Raw = _NULL


_decode_response = msgspec.json.Decoder(_Response | None).decode
# Not strict: counters may come as JSON strings.
_decode_usage = msgspec.json.Decoder(_UsageMetadata | None, strict=False).decode


def retryable(error: ResultError) -> bool:
    """Whether the same request may well succeed another time."""
    return error.code in RETRYABLE_CODES


def judge(row: OutputRow) -> Outcome:
    """The outcome of one row of output."""
    if row.error is not None:
        return _failed(row.error, retryable=retryable(row.error))
    try:
        response = _decode_response(row.response) if row.response is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _failed(ResultError(reason="MALFORMED", message=f"unreadable response: {error}"), retryable=True)
    if response is None:
        return _failed(ResultError(reason="MISSING", message="the provider gave no response"), retryable=True)
    usage = _usage(response.usage_metadata)
    if response.embedding != _NULL:
        return Outcome(ResultStatus.SUCCEEDED, None, usage)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        text = feedback.block_reason_message or "the provider blocked the prompt"
        return _failed(ResultError(reason=feedback.block_reason, message=text), usage)
    if not response.candidates:
        return _failed(ResultError(reason="EMPTY", message="no candidate in the response"), usage, retryable=True)
    candidate = response.candidates[0]
    if candidate.finish_reason not in _FINISHED:
        text = candidate.finish_message or f"the answer ended with {candidate.finish_reason}"
        return _failed(ResultError(reason=str(candidate.finish_reason), message=text), usage)
    if candidate.content is None or not candidate.content.parts:
        return _failed(ResultError(reason="EMPTY", message="the candidate is empty"), usage, retryable=True)
    return Outcome(ResultStatus.SUCCEEDED, None, usage)


def _failed(error: ResultError, usage: Usage | None = None, *, retryable: bool = False) -> Outcome:
    return Outcome(ResultStatus.FAILED, error, usage, retryable)


def _usage(raw: msgspec.Raw) -> Usage | None:
    try:
        metadata = _decode_usage(raw)
    except msgspec.DecodeError:
        return None  # unknown; no reason to throw away an answer that was paid for
    if metadata is None:
        return None
    counts: dict[str, Any] = {name: getattr(metadata, name) or 0 for name in Usage.__struct_fields__}
    if metadata.total_token_count is None:
        counts["total_token_count"] = (
            counts["prompt_token_count"]
            + counts["candidates_token_count"]
            + counts["thoughts_token_count"]
            + counts["tool_use_prompt_token_count"]
        )
    return Usage(**counts)
