"""The Gemini Developer API as a provider.

Calls go through google-genai for its endpoints, authentication and upload protocol. Batch operations are read
from the raw JSON: the SDK's typed `BatchJob` drops error and stats, and fails on rows whose error has details.

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlencode

import msgspec
from google import genai
from google.genai import errors, types

from lowtide.models import ResultError
from lowtide.states import JobState
from lowtide_worker.providers import (
    NO_RESPONSE,
    Denied,
    Missing,
    NewJob,
    OutputRow,
    ProviderInput,
    ProviderJob,
    Refused,
    Throttled,
    Unavailable,
)
from lowtide_worker.settings import WorkerSettings

_PAGE_SIZE = 100
_INLINE = "inline"
_RETRIES = types.HttpRetryOptions(attempts=3, initial_delay=0.5, max_delay=4.0)
_ONCE = types.HttpRetryOptions(attempts=1)
_decode = msgspec.json.decode


class _Row(msgspec.Struct, frozen=True):
    key: str | None = None
    response: msgspec.Raw = NO_RESPONSE
    error: msgspec.Raw = NO_RESPONSE
    status: msgspec.Raw = NO_RESPONSE


_row_decoder = msgspec.json.Decoder(_Row)


class GeminiProvider:
    """Batch jobs of the Gemini Developer API, by uploaded file or inline. See `Provider`."""

    def __init__(self, settings: WorkerSettings) -> None:
        key = settings.google_api_key
        if key is None:
            raise Unavailable(
                ResultError(reason="NO_API_KEY", message="no API key: set GEMINI_API_KEY for the workers")
            )
        self._client = genai.Client(
            vertexai=False,
            api_key=key.get_secret_value(),
            http_options=types.HttpOptions(
                base_url=settings.google_gemini_base_url,
                timeout=int(settings.provider_timeout_seconds * 1000),
            ),
        )

    def upload(self, display_name: str, data: IO[bytes]) -> str:
        """Uploads request lines as a file; they live for 48 hours."""
        with _failures():
            file = self._client.files.upload(
                file=data,  # type: ignore[arg-type]  # typed as io.IOBase; any seekable binary stream serves
                config=types.UploadFileConfig(mime_type="jsonl", display_name=display_name),
            )
        return _name(file.name)

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Whether the file is ACTIVE."""
        with _failures():
            file = self._client.files.get(name=input)
        if file.state == types.FileState.FAILED:
            raise Refused(ResultError(reason="FILE_FAILED", message=f"{input} could not be processed"))
        return file.state != types.FileState.PROCESSING

    def create(self, job: NewJob) -> ProviderJob:
        """One POST, never repeated, whatever happens."""
        batch: dict[str, Any] = {"displayName": job.display_name}
        if job.input is not None:
            batch["inputConfig"] = {"fileName": job.input}
        else:
            batch["inputConfig"] = {"requests": {"requests": [_inlined(line) for line in job.lines or ()]}}
        model = job.model if "/" in job.model else f"models/{job.model}"
        with _failures():
            return _provider_job(self._call("post", f"{model}:batchGenerateContent", {"batch": batch}, _ONCE))

    def get(self, name: str) -> ProviderJob:
        """GET of the operation."""
        with _failures():
            return _provider_job(self._call("get", name))

    def jobs(self, page_token: str | None = None) -> tuple[list[ProviderJob], str | None]:
        """One page, newest first."""
        query = {"pageSize": str(_PAGE_SIZE)} | ({"pageToken": page_token} if page_token else {})
        with _failures():
            reply = _object(self._call("get", f"batches?{urlencode(query)}"))
            jobs = [_provider_job(operation) for operation in reply.get("operations", [])]
            return jobs, _text(_either(reply, "nextPageToken", "next_page_token")) or None

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        """One page of the uploaded files; result files are not among them."""
        query = {"pageSize": str(_PAGE_SIZE)} | ({"pageToken": page_token} if page_token else {})
        with _failures():
            reply = _object(self._call("get", f"files?{urlencode(query)}"))
            files = [_object(file) for file in reply.get("files", [])]
            inputs = [
                ProviderInput(
                    name=_name(file.get("name")), display_name=_text(_either(file, "displayName", "display_name"))
                )
                for file in files
                if file.get("source", "UPLOADED") == "UPLOADED"
            ]
            return inputs, _text(_either(reply, "nextPageToken", "next_page_token")) or None

    def cancel(self, name: str) -> None:
        """POST :cancel. A job that has ended meanwhile is no error."""
        try:
            self._call("post", f"{name}:cancel")
        except Refused as refusal:
            if refusal.http_status not in (400, 404):
                raise

    def delete(self, name: str) -> None:
        """DELETE of the batch; its result file goes with it."""
        self._delete(name)

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """DELETE of the uploaded file."""
        self._delete(input)

    def _delete(self, name: str) -> None:
        try:
            self._call("delete", name)
        except Missing:
            return

    def download(self, job: ProviderJob, sink: IO[bytes]) -> None:
        """The result file as it is; inline responses as lines of the same shape."""
        if job.output is None:
            raise Missing(ResultError(reason="NO_OUTPUT", message=f"{job.name} has no output"))
        if job.output == _INLINE:
            with _failures():
                for row in _inlined_responses(self._call("get", job.name)):
                    sink.write(_inline_line(row))
            return
        with _failures():
            self._client.files.download(file=_name(job.output), destination=sink)  # type: ignore[call-overload]  # as upload

    def rows(self, block: bytes) -> list[OutputRow]:
        """Reads lines of a result file."""
        try:
            return [_output_row(row) for row in _row_decoder.decode_lines(block)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def row(self, line: bytes) -> OutputRow:
        """Reads one line of a result file."""
        try:
            return _output_row(_row_decoder.decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        retry: types.HttpRetryOptions = _RETRIES,
    ) -> Any:
        with _failures():
            # The typed methods of the SDK lose what we need (see the module's docstring); this is what they call.
            reply = self._client._api_client.request(  # noqa: SLF001
                method, path, body or {}, types.HttpOptions(retry_options=retry)
            )
            return json.loads(reply.body or "{}")


def _network_errors() -> Iterator[type[Exception]]:
    """The errors of the HTTP clients the SDK may have chosen; it does not wrap them."""
    for module in ("httpx2", "httpx"):
        try:
            yield importlib.import_module(module).HTTPError
        except ImportError:
            continue


_NETWORK: tuple[type[Exception], ...] = (OSError, ValueError, KeyError, *_network_errors())


@contextmanager
def _failures() -> Iterator[None]:
    """Sorts what the SDK raises into ours; 408, 5xx and everything from the network is uncertain."""
    try:
        yield
    except errors.APIError as error:
        code = int(error.code or 0)
        found = ResultError(reason=error.status or f"HTTP_{code}", message=error.message or str(code), code=code)
        if code == 401 or (code == 400 and "API_KEY_INVALID" in str(error.details)):
            raise Denied(found, http_status=code) from error
        if code == 429:
            raise Throttled(found, http_status=code) from error
        # A file that is gone, or of another project, is answered with 403 "or it may not exist".
        if code == 404 or (code == 403 and "may not exist" in found.message):
            raise Missing(found, http_status=code) from error
        if 400 <= code < 500 and code != 408:
            raise Refused(found, http_status=code) from error
        raise Unavailable(found, http_status=code) from error
    except _NETWORK as error:
        found = ResultError(reason="UNAVAILABLE", message=f"{type(error).__name__}: {error}")
        raise Unavailable(found) from error


def _provider_job(operation: object) -> ProviderJob:
    """Reads an operation, in either letter case; a state we do not know is kept as UNKNOWN.

    Raises `ValueError` for one without a usable name; anything else that is not as it should be is left out.
    """
    operation = _object(operation)
    metadata = _object(operation.get("metadata"))
    raw = str(metadata.get("state") or "")
    stats = _object(_either(metadata, "batchStats", "batch_stats"))
    error = operation.get("error") or metadata.get("error")
    done = _count(_either(stats, "successfulRequestCount", "successful_request_count"))
    done += _count(_either(stats, "failedRequestCount", "failed_request_count"))
    return ProviderJob(
        name=_name(operation.get("name") or metadata.get("name")),
        display_name=_text(_either(metadata, "displayName", "display_name")),
        state=_state(raw),
        provider_state=raw,
        output=_output(_object(metadata.get("output") or operation.get("response"))),
        error=_status_error(_object(error)) if error else None,
        model=_text(metadata.get("model")),
        requests=_count(_either(stats, "requestCount", "request_count")),
        done_requests=done,
        create_time=_text(_either(metadata, "createTime", "create_time")),
    )


# Our own words: the provider may come to use them for something else.
_OURS = frozenset({JobState.PLANNED, JobState.CREATING, JobState.UNKNOWN, JobState.LOST})
_STATES = {state.value: state for state in JobState if state not in _OURS}


def _state(raw: str) -> JobState:
    word = raw.lower().removeprefix("batch_state_").removeprefix("job_state_")
    return _STATES.get(word, JobState.UNKNOWN)


def _output(output: Mapping[str, Any]) -> str | None:
    file = _either(output, "responsesFile", "responses_file")
    if file:
        return str(file)
    return _INLINE if _either(output, "inlinedResponses", "inlined_responses") else None


def _inlined(line: bytes) -> dict[str, Any]:
    request = _decode(line)
    return {"request": request["request"], "metadata": {"key": request["key"]}}


def _inlined_responses(operation: object) -> list[object]:
    operation = _object(operation)
    output = _object(_object(operation.get("metadata")).get("output") or operation.get("response"))
    nested = _object(_either(output, "inlinedResponses", "inlined_responses"))
    rows = _either(nested, "inlinedResponses", "inlined_responses")
    return rows if isinstance(rows, list) else []


def _inline_line(value: object) -> bytes:
    row = _object(value)
    line: dict[str, Any] = {name: row[name] for name in ("response", "error") if name in row}
    key = _object(row.get("metadata")).get("key")
    if isinstance(key, str):
        line["key"] = key
    # Not the fast codec: this one can write whatever its like has read (numbers and half characters of any kind).
    return json.dumps(line).encode() + b"\n"


def _output_row(row: _Row) -> OutputRow:
    if row.error == NO_RESPONSE and row.status == NO_RESPONSE:
        return OutputRow(row.key, row.response)
    return OutputRow(row.key, row.response, _row_error(row.error) or _row_error(row.status))


def _row_error(raw: msgspec.Raw) -> ResultError | None:
    """A row's error: a google.rpc.Status, or a word; an empty one means none."""
    value = _decode(raw)
    if not value or (isinstance(value, Mapping) and value.get("code") == 0):
        return None
    return _status_error(value) if isinstance(value, Mapping) else ResultError(reason="ERROR", message=str(value))


def _status_error(value: Mapping[str, Any]) -> ResultError:
    code = value.get("code")
    number = int(str(code)) if re.fullmatch(r"-?[0-9]{1,9}", str(code)) else None
    return ResultError(
        reason=str(value.get("status") or _GRPC.get(number or -1, "ERROR")),
        message=str(value.get("message") or "the provider gave no message"),
        code=number,
    )


_GRPC = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION",
    10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}  # fmt: skip


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int:
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else 0


def _either(value: Mapping[str, Any], camel: str, snake: str) -> Any:
    return value[camel] if camel in value else value.get(snake)


def _name(value: object) -> str:
    """The provider's input is untrusted: a name goes into a URL's path, so only its own shapes pass."""
    if isinstance(value, str) and value.startswith(("batches/", "files/")) and value.isascii():
        tail = value.partition("/")[2]
        if tail and all(c.isalnum() or c in "-_" for c in tail):
            return value
    raise ValueError(f"the provider answered with an unusable name: {value!r:.100}")
