"""The provider for the Gemini Developer API: jobs with an uploaded JSONL file, or with inline requests.

Files are uploaded by google-genai. Batch operations and downloads are raw calls (`providers.google`).

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any
from urllib.parse import urlencode

import msgspec
from google.genai import types

from lowtide.models import ResultError
from lowtide.states import Kind
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers.google import (
    ONCE,
    GoogleClient,
    PageReader,
    RowReader,
    as_count,
    as_object,
    as_page,
    as_text,
    as_time,
    call,
    cancel,
    download,
    either,
    failures,
    job_state,
    status_error,
)
from lowtide_worker.providers.protocol import (
    NO_RESPONSE,
    Missing,
    NewJob,
    Output,
    OutputRow,
    Part,
    ProviderInput,
    ProviderJob,
    Refused,
    Sink,
    Unavailable,
    Uploaded,
)
from lowtide_worker.settings import WorkerSettings

_PAGE_SIZE = 100
_INLINE = "inline"
_decode = msgspec.json.decode


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A line of a result file. A failed row has an `error` or a `status`."""

    key: str | None = None
    response: msgspec.Raw = NO_RESPONSE
    error: msgspec.Raw = NO_RESPONSE
    status: msgspec.Raw = NO_RESPONSE


class GeminiProvider:
    """The provider of batch jobs of the Gemini Developer API. See `Provider` for each method.

    Raises `Unavailable` if the settings have no API key.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        key = settings.google_api_key
        if key is None:
            raise Unavailable(
                ResultError(reason="NO_API_KEY", message="no API key: set GEMINI_API_KEY for the workers")
            )
        self._pages = PageReader()
        self._range_bytes = settings.segment_bytes
        self._client = GoogleClient(
            settings, base_url=settings.google_gemini_base_url, vertexai=False, api_key=key.get_secret_value()
        )

    def upload(self, display_name: str, data: IO[bytes]) -> Uploaded:
        """Uploads request lines as a file. The API deletes it after 48 hours."""
        with failures():
            file = self._client.files.upload(
                file=data,  # type: ignore[arg-type]  # typed as io.IOBase; any seekable binary stream works
                config=types.UploadFileConfig(mime_type="jsonl", display_name=display_name),
            )
        return Uploaded(_name(file.name), file.state == types.FileState.ACTIVE)

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Returns whether the API has processed the file. Raises `Refused` if that failed."""
        with failures(), self._client.bounded():
            file = self._client.files.get(name=input)
        if file.state == types.FileState.FAILED:
            raise Refused(ResultError(reason="FILE_FAILED", message=f"{input} could not be processed"))
        return file.state != types.FileState.PROCESSING

    def pin(self, display_name: str, sources: Sequence[Part]) -> Sequence[str]:  # noqa: ARG002 - the Protocol's
        """Raises `Refused`: this API reads uploaded files only."""
        raise Refused(ResultError(reason="NO_SOURCES", message="the Developer API reads no places of users"))

    def confirm(self, sources: Sequence[Part], until: float) -> None:
        """Does nothing: there are no sources."""

    def has_webhooks(self, kind: Kind) -> bool:
        """Returns whether it is a job of generateContent requests: those of embeddings have none."""
        return kind is not Kind.EMBEDDING

    def authorize(self) -> None:
        """Does nothing: an API key needs no call."""

    def create(self, job: NewJob, deadline: Deadline) -> ProviderJob:
        """Creates a job by one POST, which is never repeated."""
        batch: dict[str, Any] = {"displayName": job.display_name}
        if job.input is not None:
            batch["inputConfig"] = {"fileName": job.input}
        else:
            batch["inputConfig"] = {"requests": {"requests": [_inlined(line) for line in job.lines or ()]}}
        if job.webhook is not None:
            batch["webhookConfig"] = {"uris": [job.webhook.url], "user_metadata": dict(job.webhook.metadata)}
        model = job.model if "/" in job.model else f"models/{job.model}"
        method = "asyncBatchEmbedContent" if job.kind is Kind.EMBEDDING else "batchGenerateContent"
        with failures():
            return _provider_job(call(self._client, "post", f"{model}:{method}", {"batch": batch}, ONCE, deadline))

    def get(self, name: str) -> ProviderJob:
        """Fetches the job (GET of its operation)."""
        with failures():
            return _provider_job(call(self._client, "get", name))

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        """Returns a page of all jobs, newest first. This API cannot search for a display name."""
        query = {"pageSize": str(_PAGE_SIZE)} | ({"pageToken": page_token} if page_token else {})
        with failures():
            reply = as_page(call(self._client, "get", f"batches?{urlencode(query)}"))
            jobs = self._pages.read(reply.get("operations", []), _provider_job, needed=display_name)
            return jobs, as_text(either(reply, "nextPageToken", "next_page_token")) or None

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        """Returns a page of the uploaded files, without the result files of jobs."""
        query = {"pageSize": str(_PAGE_SIZE)} | ({"pageToken": page_token} if page_token else {})
        with failures():
            reply = as_page(call(self._client, "get", f"files?{urlencode(query)}"))
            inputs = self._pages.read(reply.get("files", []), _provider_input)
            uploaded = [found for found in inputs if found is not None]
            return uploaded, as_text(either(reply, "nextPageToken", "next_page_token")) or None

    def unreadable_items(self) -> int:
        """Returns how many items of list pages were skipped as unreadable."""
        return len(self._pages.unreadable)

    def cancel(self, name: str) -> None:
        """Cancels a job (POST `:cancel`)."""
        cancel(self._client, name)

    def delete(self, name: str) -> None:
        """Deletes a job (DELETE). The API deletes its result file with it."""
        self._delete(name)

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """Deletes an uploaded file (DELETE)."""
        self._delete(input)

    def _delete(self, name: str) -> None:
        try:
            call(self._client, "delete", name)
        except Missing:
            return

    def clear(self, display_name: str) -> None:
        """Does nothing: the API deletes a result file with its job."""

    def parts(self, output: Output) -> None:
        """Returns None: this API's files expire, so that they are copied into the spool at once."""

    def read(self, part: Part, start: int, end: int) -> bytes:  # noqa: ARG002 - the Protocol's
        """Raises `Missing`: there are no parts."""
        raise Missing(ResultError(reason="NO_PARTS", message=f"{part.name} is no part of an output"))

    def resumable(self, output: Output) -> bool:  # noqa: ARG002 - the Protocol's
        """Returns True: a result file does not change."""
        return True

    def download(self, output: Output, sink: Sink) -> None:
        """Writes the result file as it is, by several ranges at once where the API answers them.

        Inline responses are written as lines of the same shape.
        """
        if output.location == _INLINE:
            with failures():
                for row in _inlined_responses(call(self._client, "get", output.job)):
                    sink.write(_inline_line(row))
            return
        with failures():
            path = f"{_name(output.location)}:download?alt=media"
            download(self._client, path, sink, range_bytes=self._range_bytes)

    def rows(self, block: bytes) -> list[OutputRow]:
        """Decodes whole lines of a result file."""
        return _lines.many(block)

    def row(self, line: bytes) -> OutputRow:
        """Decodes one line of a result file."""
        return _lines.one(line)


def _provider_job(operation: object) -> ProviderJob:
    """Returns the job that an operation describes, in camelCase or snake_case.

    An unknown state is UNKNOWN. Any other field of the wrong type counts as missing. Raises `ValueError` for an
    operation without a usable name.
    """
    operation = as_object(operation)
    metadata = as_object(operation.get("metadata"))
    raw = str(metadata.get("state") or "")
    stats = as_object(either(metadata, "batchStats", "batch_stats"))
    error = operation.get("error") or metadata.get("error")
    done = as_count(either(stats, "successfulRequestCount", "successful_request_count"))
    done += as_count(either(stats, "failedRequestCount", "failed_request_count"))
    return ProviderJob(
        name=_name(operation.get("name") or metadata.get("name")),
        display_name=as_text(either(metadata, "displayName", "display_name")),
        state=job_state(raw),
        provider_state=raw,
        output=_output(as_object(metadata.get("output") or operation.get("response"))),
        error=status_error(as_object(error)) if error else None,
        model=as_text(metadata.get("model")),
        requests=as_count(either(stats, "requestCount", "request_count")),
        done_requests=done,
        create_time=as_text(either(metadata, "createTime", "create_time")),
        end_time=as_time(either(metadata, "endTime", "end_time")),
    )


def _provider_input(value: object) -> ProviderInput | None:
    """Returns an uploaded file, or None for a file that a job wrote. Raises `ValueError` for an unusable name."""
    file = as_object(value)
    if file.get("source", "UPLOADED") != "UPLOADED":
        return None
    return ProviderInput(
        name=_name(file.get("name")), display_name=as_text(either(file, "displayName", "display_name"))
    )


def _output(output: Mapping[str, Any]) -> str | None:
    file = either(output, "responsesFile", "responses_file")
    if file:
        return str(file)
    return _INLINE if either(output, "inlinedResponses", "inlined_responses") else None


def _inlined(line: bytes) -> dict[str, Any]:
    request = _decode(line)
    return {"request": request["request"], "metadata": {"key": request["key"]}}


def _inlined_responses(operation: object) -> list[object]:
    operation = as_object(operation)
    output = as_object(as_object(operation.get("metadata")).get("output") or operation.get("response"))
    nested = as_object(either(output, "inlinedResponses", "inlined_responses"))
    rows = either(nested, "inlinedResponses", "inlined_responses")
    return rows if isinstance(rows, list) else []


def _inline_line(value: object) -> bytes:
    row = as_object(value)
    line: dict[str, Any] = {name: row[name] for name in ("response", "error") if name in row}
    key = as_object(row.get("metadata")).get("key")
    if isinstance(key, str):
        line["key"] = key
    # Not msgspec: only the standard codec can write everything that it read (huge numbers, unpaired surrogates).
    return json.dumps(line).encode() + b"\n"


def _output_row(row: _Row) -> OutputRow:
    if row.error == NO_RESPONSE and row.status == NO_RESPONSE:
        return OutputRow(row.key, row.response)
    return OutputRow(row.key, row.response, _row_error(row.error) or _row_error(row.status))


_lines = RowReader(_Row, _output_row)


def _row_error(raw: msgspec.Raw) -> ResultError | None:
    """Returns a row's error, a `google.rpc.Status` or a text; None for an empty one or code 0."""
    value = _decode(raw)
    if not value or (isinstance(value, Mapping) and value.get("code") == 0):
        return None
    return status_error(value) if isinstance(value, Mapping) else ResultError(reason="ERROR", message=str(value))


def _name(value: object) -> str:
    """Returns the provider's name of a job or file. Raises `ValueError` for anything but `batches/...` and `files/...`.

    The provider's answers are untrusted, and the name goes into a URL's path.
    """
    if isinstance(value, str) and value.startswith(("batches/", "files/")) and value.isascii():
        tail = value.partition("/")[2]
        if tail and all(c.isalnum() or c in "-_" for c in tail):
            return value
    raise ValueError(f"the provider answered with an unusable name: {value!r:.100}")
