"""The row table: it turns each row of a provider's output into the outcome of a request.

| the row has | outcome |
|---|---|
| a candidate that finished (STOP, or no reason given) with content, or an embedding | succeeded |
| an error with code 1, 4, 8, 10, 13, 14 (gRPC) or 408, 409, 429, 499, 500, 502, 503, 504 (HTTP) | retry |
| any other error | failed, with the provider's reason |
| a prompt that was blocked (`promptFeedback.blockReason`) | failed, with the block reason |
| a candidate that ended with CONTINUATION (or no reason) and a continuation token | its answer is continued |
| a candidate that ended for any other reason (MAX_TOKENS, SAFETY, RECITATION, ...) | failed, with the finish reason |
| no response at all, or an unreadable one | retry |
| an answer that says nothing: no candidate, no content, or only white space and thoughts (`EMPTY`) | retry |

The request of an answer that is continued runs again with the token, which costs no attempt; `partial_answers` joins
the answers. A batch's `outcomes`, and those of `LOWTIDE_OUTCOMES`, overrule the table for a reason or a code. `retry`
becomes `failed` when the request has no attempt left. A failed row keeps the response that it came with.

Source: https://ai.google.dev/api/generate-content (FinishReason, BlockReason), google.rpc.Code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, assert_never

import msgspec
from msgspec.structs import replace

from lowtide.answers import is_empty
from lowtide.models import ResultError, Usage
from lowtide.protocol.measures import CONTINUATION
from lowtide.states import ResultStatus, Verdict
from lowtide_worker.providers import NO_RESPONSE, OutputRow

RETRYABLE_CODES = frozenset({1, 4, 8, 10, 13, 14, 408, 409, 429, 499, 500, 502, 503, 504})
DEEPEST = 200
"""The deepest nesting of a readable response. JSON decoders fail somewhere between 300 and 1,000 levels."""
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
MALFORMED = "MALFORMED"
"""The reason of a response that cannot be read. It is not stored."""
_FINISHED = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})
_CONTINUES = frozenset({None, CONTINUATION})
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
_MAX_TOKEN_CHARS = 1 << 20


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a request in one job."""

    status: ResultStatus
    error: ResultError | None
    """The reason of a failure; None if the request succeeded."""
    usage: Usage | None
    """The tokens used; None if the response does not say."""
    retryable: bool = False
    """Whether a failed request runs again in another job, if it has an attempt left."""
    model: str | None = None
    """The model that answered, as the response names it; None if it does not say."""
    continuation: str | None = None
    """The token with which the request runs again, where its answer is not complete; None for any other outcome."""


class _Content(msgspec.Struct, frozen=True, gc=False):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, frozen=True, rename="camel", gc=False):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    continuation_token: Any = None


class _PromptFeedback(msgspec.Struct, frozen=True, rename="camel", gc=False):
    block_reason: str | None = None
    block_reason_message: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
"""A token count, an int32 in the API: sums of them fit into the integers of Redis."""


class _UsageMetadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    prompt_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None
    tool_use_prompt_token_count: _Count | None = None
    total_token_count: _Count | None = None


class _Response(msgspec.Struct, frozen=True, rename="camel", gc=False):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    embedding: msgspec.Raw = NO_RESPONSE
    model_version: Any = None


class _MeasuredResponse(_Response, frozen=True, rename="camel", gc=False):
    usage_metadata: _UsageMetadata | None = None
    token_count: _Count | None = None
    """The token count of an embedding, which has no `usageMetadata`."""


# Not strict: counters may come as JSON strings.
_decode_measured = msgspec.json.Decoder(_MeasuredResponse | None, strict=False).decode
_decode_response = msgspec.json.Decoder(_Response | None).decode
_decode_part = msgspec.json.Decoder().decode
_SAYS_TEXT = re.compile(rb'\s*\{\s*"text"\s*:\s*"[^\s"\\]')
"""The beginning of nearly all answers: a part whose text begins with a character that is no white space."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def too_deep(response: bytes) -> bool:
    """Returns whether JSON is nested deeper than `DEEPEST`, so that a reader of the stored result might fail on it."""
    if _brackets(response) <= DEEPEST:
        return False
    # Brackets in strings do not nest; an answer with code in it has many.
    structure = _STRINGS.sub(b"", response)
    if _brackets(structure) <= DEEPEST:
        return False
    depth = 0
    for byte in structure:
        if byte in b"{[":
            depth += 1
            if depth > DEEPEST:
                return True
        elif byte in b"}]":
            depth -= 1
    return False


def _brackets(json: bytes) -> int:
    return json.count(b"{") + json.count(b"[")


def retryable(error: ResultError) -> bool:
    """Returns whether the same request may succeed another time."""
    return error.code in RETRYABLE_CODES


def overruled(outcome: Outcome, outcomes: Mapping[str, Verdict]) -> Outcome:
    """Returns the outcome after the batch's `outcomes`, which map reasons and codes to verdicts, are applied to it."""
    if outcome.error is None:
        return outcome
    match outcomes.get(outcome.error.reason) or outcomes.get(str(outcome.error.code)):
        case Verdict.RETRY:
            return replace(outcome, retryable=True, continuation=None)
        case Verdict.FAIL:
            return replace(outcome, retryable=False, continuation=None)
        case Verdict.SUCCEED if outcome.error.reason != MALFORMED:
            return replace(outcome, status=ResultStatus.SUCCEEDED, error=None, retryable=False, continuation=None)
        case Verdict.SUCCEED | None:
            # An unreadable response is never a result, whatever the verdict.
            return outcome
        case never:
            assert_never(never)


def judge(row: OutputRow) -> Outcome:
    """Returns the outcome of one row of output, by the module's table."""
    if too_deep(bytes(row.response)):
        message = f"unreadable response: nested deeper than {DEEPEST} levels"
        return _failed(ResultError(reason=MALFORMED, message=message), retryable=True)
    try:
        return _outcome(row.error, _decode_measured(row.response))
    except _UNREADABLE:
        pass
    try:
        # With malformed usage the tokens are unknown. The answer is paid for and stays.
        return _outcome(row.error, _decode_response(row.response))
    except _UNREADABLE as error:
        return _failed(ResultError(reason=MALFORMED, message=f"unreadable response: {error}"), retryable=True)


def _outcome(error: ResultError | None, response: _Response | None) -> Outcome:
    if error is not None:
        return _failed(error, retryable=retryable(error))
    if response is None:
        return _failed(ResultError(reason="MISSING", message="the provider gave no response"), retryable=True)
    usage = _usage(response) if isinstance(response, _MeasuredResponse) else None
    model = response.model_version if isinstance(response.model_version, str) else None
    if response.embedding != NO_RESPONSE:
        return Outcome(ResultStatus.SUCCEEDED, None, usage, model=model)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        text = feedback.block_reason_message or "the provider blocked the prompt"
        return _failed(ResultError(reason=feedback.block_reason, message=text), usage, model)
    if not response.candidates:
        return _failed(
            ResultError(reason="EMPTY", message="no candidate in the response"), usage, model, retryable=True
        )
    candidate = response.candidates[0]
    if candidate.continuation_token and candidate.finish_reason in _CONTINUES:
        return _continued(candidate.continuation_token, usage, model)
    if candidate.finish_reason not in _FINISHED:
        text = candidate.finish_message or f"the answer ended with {candidate.finish_reason}"
        return _failed(ResultError(reason=str(candidate.finish_reason), message=text), usage, model)
    if candidate.content is None or not candidate.content.parts or _is_empty(candidate.content.parts):
        return _failed(ResultError(reason="EMPTY", message="the candidate is empty"), usage, model, retryable=True)
    return Outcome(ResultStatus.SUCCEEDED, None, usage, model=model)


def _continued(token: object, usage: Usage | None, model: str | None) -> Outcome:
    """The outcome of an answer that is not complete.

    The token becomes a part of a job's input. One that is no base64 would have the provider refuse the whole job.
    """
    if isinstance(token, str) and len(token) <= _MAX_TOKEN_CHARS and _TOKEN.fullmatch(token):
        error = ResultError(reason=CONTINUATION, message="the answer is not complete")
        return Outcome(ResultStatus.FAILED, error, usage, retryable=True, model=model, continuation=token)
    message = "the answer is not complete, and its continuation token cannot be used"
    return _failed(ResultError(reason=CONTINUATION, message=message), usage, model)


def _is_empty(parts: list[msgspec.Raw]) -> bool:
    """Whether an answer has only thoughts, or text of white space: it was paid for, and says nothing."""
    first = bytes(parts[0])
    if _SAYS_TEXT.match(first) and b'"thought"' not in first:
        return False
    decoded = [_decode_part(part) for part in parts]
    return is_empty({"candidates": [{"content": {"parts": decoded}}]})


def _failed(
    error: ResultError, usage: Usage | None = None, model: str | None = None, *, retryable: bool = False
) -> Outcome:
    return Outcome(ResultStatus.FAILED, error, usage, retryable, model)


def _usage(response: _MeasuredResponse) -> Usage | None:
    metadata = response.usage_metadata
    if metadata is None:
        count = response.token_count
        return None if count is None else Usage(prompt_token_count=count, total_token_count=count)
    prompt = metadata.prompt_token_count or 0
    candidates = metadata.candidates_token_count or 0
    thoughts = metadata.thoughts_token_count or 0
    tools = metadata.tool_use_prompt_token_count or 0
    total = metadata.total_token_count
    return Usage(
        prompt_token_count=prompt,
        cached_content_token_count=metadata.cached_content_token_count or 0,
        candidates_token_count=candidates,
        thoughts_token_count=thoughts,
        tool_use_prompt_token_count=tools,
        total_token_count=prompt + candidates + thoughts + tools if total is None else total,
    )
