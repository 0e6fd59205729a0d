"""The public data: requests, results and the status of a batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from lowtide import answers
from lowtide.answers import FunctionCall, Image
from lowtide.budgets import Shortage
from lowtide.redaction import redacted
from lowtide.states import Awaited, BatchState, JobState, Kind, ProviderName, ResultStatus

REQUESTS_LOST = "REQUESTS_LOST"
"""Reason of a batch whose requests disappeared from the spool before anything was sent."""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One generateContent or embedContent call in the SDK's inline shape. Each value is given by its name.

    - `key`: any non-empty string of at most 16 KiB, unique in its batch. Only `BatchQueue.add` takes requests without.
    - `contents`: as in `google.genai`'s `generate_content` or `embed_content`: text, dicts in either letter case, or
      SDK objects.
    - `config`: likewise; None: no configuration.
    - `metadata`: strings to strings, at most 64 KiB. The provider does not get it; the result has it again.

    Example::

        Request(key="mug-12", contents="Describe a blue mug.", config={"temperature": 0.2}, metadata={"shop": "north"})

    Source: https://ai.google.dev/gemini-api/docs/batch-api, inline requests.
    """

    key: str = ""
    contents: Any
    config: Any = None
    metadata: Mapping[str, str] | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one request or of a whole batch, under Google's `usageMetadata` names.

    A counter that the provider left out is 0. A result has `usage` None where the usage is unknown.
    """

    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    total_token_count: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Returns the tokens of both."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


_MAX_REASON_CHARS = 100


class ResultError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a request did not succeed.

    - `reason`: a short word to branch on (`INVALID_ARGUMENT`, `SAFETY`, `MISSING`, ...).
    - `message`: the problem, for people.
    - `code`: a gRPC code (3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, ...); None where the provider gave none.
    """

    reason: str
    message: str
    code: int | None = None

    def shortened(self, most: int) -> ResultError:
        """Returns this error without secrets: the message has at most `most` characters, the reason at most 100."""
        message, reason = redacted(self.message)[:most], redacted(self.reason)[:_MAX_REASON_CHARS]
        if (message, reason) == (self.message, self.reason):
            return self
        return msgspec.structs.replace(self, message=message, reason=reason)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The one final outcome of one request.

    - `key`, `metadata`: those of the request.
    - `status`: succeeded, failed, expired or cancelled.
    - `response`: the provider's GenerateContentResponse or EmbedContentResponse as plain JSON data (camelCase); None
      where it gave none. An answer that came from several jobs is one response.
    - `error`: the reason why the request did not succeed; None where it did.
    - `usage`: the tokens of this request; None where they are unknown.
    - `attempts`: the number of provider jobs that carried the request.
    - `cost`: the price of `usage` in nano-dollars (US dollars * 10**9), by the model that answered; None where the
      tokens or their price are unknown. Answers that came before the request ran again are not in it: see
      `BatchStatus.paid_cost`.
    - `batch_id`, `labels`: those of the batch. Stored lines have them only where batches shared a job; else they come
      with the delivery.
    """

    key: str
    status: ResultStatus
    response: dict[str, Any] | None = None
    error: ResultError | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    attempts: int = 1
    cost: int | None = None
    batch_id: str = ""
    labels: Mapping[str, str] = {}

    @property
    def text(self) -> str | None:
        """The text parts of the first candidate, joined, without thoughts; None where there are none."""
        return answers.text_of(self.response)

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the first candidate as plain JSON data, with thoughts."""
        return answers.parts_of(self.response)

    @property
    def parsed(self) -> Any:
        """The text decoded as JSON; None where it is no JSON. Meant for requests that asked for JSON."""
        return answers.json_of(self.response)

    @property
    def function_calls(self) -> list[FunctionCall]:
        """The function calls of the first candidate."""
        return answers.calls_of(self.response)

    @property
    def images(self) -> list[Image]:
        """The images of the first candidate, decoded."""
        return answers.images_of(self.response)

    @property
    def model_version(self) -> str | None:
        """The name of the model that answered, as the provider gives it."""
        match self.response:
            case {"modelVersion": str(name)}:
                return name
        return None

    @property
    def modalities(self) -> dict[str, dict[str, int]]:
        """The tokens by modality, where the provider reports them: of each counter of `usage` that it divides, as in
        `{"prompt_token_count": {"TEXT": 30, "AUDIO": 70}}`. Empty where it reports none."""
        return answers.modalities_of(self.response)

    @property
    def vector(self) -> list[float] | None:
        """The values of an embedding; None where there are none."""
        match self.response:
            case {"embedding": {"values": [*values]}} if all(isinstance(value, (int, float)) for value in values):
                return [float(value) for value in values]
        return None


_MOST_DIGITS = 4000
_MOST_CHARS = 500
_decode_result = msgspec.json.Decoder(Result).decode
_set = msgspec.structs.force_setattr


def read_result(line: bytes, *, batch_id: str = "", labels: Mapping[str, str] | None = None) -> Result:
    """Decodes a stored result line of a batch, with the batch's id and labels.

    The line has the provider's response unchanged. JSON allows numbers beyond a float, which only the slow codec reads.
    A line that no codec can read becomes a failed result with the reason `UNREADABLE`, so that it does not block the
    other results. Its key is empty where even the key cannot be read.
    """
    try:
        result = _decode_result(line)
    except (ValueError, RecursionError):
        result = _read_odd_result(line)
    # Set in place, as no other code has this result yet: a copy would cost each of a million results as much again.
    # The lines of batches that share jobs have their own.
    if not result.batch_id:
        _set(result, "batch_id", batch_id)
        _set(result, "labels", labels or {})
    return result


def _read_odd_result(line: bytes) -> Result:
    try:
        return msgspec.convert(json.loads(line, parse_int=_any_int), Result)
    except (ValueError, RecursionError) as error:
        message = f"the stored result cannot be read: {type(error).__name__}: {error}"[:_MOST_CHARS]
        return Result(
            key=_key_of(line), status=ResultStatus.FAILED, error=ResultError(reason="UNREADABLE", message=message)
        )


def _any_int(digits: str) -> int | float:
    """Returns an integer, or infinity for more digits than Python converts."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _key_of(line: bytes) -> str:
    """Returns the key of a result line, its first field; empty where there is none."""
    _, start, rest = line.partition(b'"key":')
    try:
        key, _ = json.JSONDecoder().raw_decode(rest.decode(errors="replace").lstrip())
    except (ValueError, RecursionError):
        return ""
    return key if start and isinstance(key, str) else ""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One provider job of a batch. Times are Unix seconds."""

    id: str
    state: JobState
    requests: int
    """Requests of the batch that it carries."""
    others: int = 0
    """Requests of other batches that it carries; 0 where the batch shares no jobs."""
    attempt: int
    continuations: int = 0
    """How often the answers of its requests have been continued; 0 for a job that asks for whole answers."""
    name: str | None = None
    provider_state: str | None = None
    done_requests: int = 0
    polls: int = 0
    error: ResultError | None = None
    problem: str | None = None
    """The error of the last try, while the job is retried."""
    estimated_tokens: int | None = None
    """Estimated input tokens of its requests; None until the job has asked for a slot."""
    awaits: Awaited | None = None
    """The reason why it cannot be created yet; None where it does not wait."""
    shortage: Shortage | None = None
    """The budget that it waits for; None where it waits for none."""
    created_at: float | None = None
    ended_at: float | None = None
    """When it was first seen to have ended at the provider."""
    next_at: float | None = None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a batch that wait to be sent to the provider, and what they wait for."""

    why: Awaited
    """The reason why its first job in the line waits; else that the provider has refused it."""
    reason: str
    """The same for people; of a refusal the provider's words, and what is live."""
    requests: int
    tokens: int
    """Estimated input tokens of these requests, as far as they are known."""
    live_tokens: int | None = None
    """Estimated tokens of the live jobs of the model; None unless it waits for tokens, or was refused for a quota."""
    limit: int | None = None
    """The most of these, as configured or learned from refusals; None likewise, and where none is known."""
    budget: Shortage | None = None
    """The budget that leaves too little, as it was when its first job last asked; None unless it waits for one."""
    position: int | None = None
    """Place of its first job in the line of jobs of its model, from 1; None where it is in no line."""
    next_try_at: float | None = None
    """Unix time of the next try at the latest: a job is tried as soon as what it waits for is there."""


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a batch. Times are Unix seconds; counts are requests."""

    id: str
    state: BatchState
    model: str
    provider: ProviderName = ProviderName.GEMINI
    kind: Kind = Kind.GENERATION
    destination: str | None = None
    """The user's place for the provider's output; None where the user named none."""
    sources: list[str] = []
    """The user's objects or table that the provider reads in place; empty where it gets copies."""
    total: int
    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    jobs: list[JobStatus] = []
    job_counts: dict[JobState, int] = {}
    """All jobs by state, also those that `Batch.status(max_jobs=...)` leaves out of `jobs`; empty in a summary."""
    bundle: str | None = None
    """The bundle whose jobs carry the requests, together with those of other small batches; None where the batch has
    jobs of its own. `jobs` are those jobs of the bundle that carry some of them."""
    bundled: int = 0
    """The number of batches in the bundle, this one included; 0 where there is none."""
    answered: int = 0
    """Requests that have succeeded or failed, or that the provider reported as done at the last poll. It grows before
    these two are counted. Requests that were cancelled or have expired are not answered."""
    estimated_tokens: int = 0
    """Estimated input tokens of all requests, by which the provider's quotas are kept; `usage` has what was paid."""
    usage: Usage = Usage()
    """Tokens of all results."""
    discarded_usage: Usage = Usage()
    """Tokens of rows that did not become results: their requests ran again, had a result already, or are not known."""
    max_cost: int | None = None
    """Most that may be paid for it, in nano-dollars; None: no limit."""
    cost: int | None = None
    """Cost of `usage` in nano-dollars (US dollars * 10**9), as far as it is known; None where nothing of it is."""
    paid_cost: int | None = None
    """Cost of `usage` and of `discarded_usage`: the price of all rows, in nano-dollars; None likewise."""
    unpriced: int = 0
    """Rows whose tokens or price are not known, which both costs leave out."""
    reasons: dict[str, int] = {}
    """Results without success by `ResultError.reason`. At most 50 reasons; further ones are under `(others)`."""
    models: dict[str, int] = {}
    """Results by the model that answered, as the provider names it. At most 50 models, as with `reasons`."""
    labels: dict[str, str] = {}
    on_result: str | None = None
    on_finished: str | None = None
    on_progress: str | None = None
    idempotency_key: str | None = None
    error: ResultError | None = None
    duplicates: int = 0
    quarantined: int = 0
    undelivered: int = 0
    parked: int = 0
    waiting: Waiting | None = None
    """The requests that wait to be sent; None where none waits, and in a summary. On a page of batches it is about the
    newest 8 jobs of a batch."""
    problems: list[str] = []
    """Why the batch does not progress, or its results are not delivered, for people; empty where all is well."""
    warnings: list[str] = []
    """Oddities of the results, for people: another model than the one that was asked for gave them."""
    created_at: float
    deadline_at: float | None = None
    """When it gets no more jobs; None where it was submitted without a deadline of its own."""
    finished_at: float | None = None

    @property
    def settled(self) -> int:
        """The number of requests that have their final result."""
        return self.succeeded + self.failed + self.expired + self.cancelled

    @property
    def ended(self) -> int:
        """The number of requests that are answered, cancelled or expired: nothing more comes."""
        return self.answered + self.cancelled + self.expired

    @property
    def finished(self) -> bool:
        """Whether every request has its final result."""
        return self.state.finished


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of `BatchQueue.list`, newest first; `next_page_token` is None at the end."""

    batches: list[BatchStatus]
    next_page_token: str | None = None
    unreadable: list[str] = []
    """Ids of batches on this page whose records are damaged or have a newer version."""


def to_builtins(value: msgspec.Struct) -> dict[str, Any]:
    """Returns a model as plain data (dicts, lists, numbers, strings), ready for any JSON encoder."""
    return cast("dict[str, Any]", msgspec.to_builtins(value))
