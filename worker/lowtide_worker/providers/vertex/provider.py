"""Vertex AI batch prediction as a provider.

A job's requests lie in Cloud Storage, as a file that we wrote or the user's own, or in the user's BigQuery table. Its
output is read where the job wrote it: from Cloud Storage by ranges, from BigQuery page by page.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import re
from typing import IO, Any
from urllib.parse import urlencode

import msgspec

from lowtide.cloud import credentials
from lowtide.models import ResultError
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers.google import (
    GRPC_CODES,
    ONCE,
    GoogleClient,
    PageReader,
    RowReader,
    as_count,
    as_object,
    as_page,
    as_text,
    call,
    cancel,
    failures,
    job_state,
    status_error,
)
from lowtide_worker.providers.protocol import (
    NO_RESPONSE,
    Denied,
    Missing,
    NewJob,
    Output,
    OutputRow,
    Part,
    ProviderInput,
    ProviderJob,
    Refused,
    Unavailable,
)
from lowtide_worker.providers.vertex.storage import VertexStorage
from lowtide_worker.providers.vertex.tables import VertexTables
from lowtide_worker.settings import WorkerSettings

_PAGE_SIZE = 100
_JOBS = "batchPredictionJobs"
_NAME = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/batchPredictionJobs/[\w-]+", re.ASCII)
_FAILED_ROW = re.compile(r"[^{]*(\{.*\})[^}]*", re.DOTALL)


class _Row(msgspec.Struct, frozen=True, gc=False):
    key: str | None = None
    response: msgspec.Raw = NO_RESPONSE
    status: str | None = None


class VertexProvider:
    """Batch prediction jobs of Vertex AI, from and to Cloud Storage or BigQuery. See `Provider`."""

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.google_cloud_project is None:
            raise _unset("GOOGLE_CLOUD_PROJECT", "to the project whose Vertex AI runs the jobs")
        if settings.vertex_storage is None:
            raise _unset("LOWTIDE_VERTEX_STORAGE", "to gs://bucket/folder, where jobs' files may lie")
        self._pages = PageReader()
        with failures():
            self._client = GoogleClient(
                settings,
                base_url=settings.google_vertex_base_url,
                vertexai=True,
                project=settings.google_cloud_project,
                location=settings.google_cloud_location,
                credentials=credentials(settings),
            )
        self._storage = VertexStorage(settings, settings.vertex_storage)
        self._tables = VertexTables(settings)

    def upload(self, display_name: str, data: IO[bytes]) -> str:
        """Writes request lines under our folder; the same name is written over."""
        return self._storage.upload(display_name, data)

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Whether the object is there: an object is whole from the start."""
        return self._storage.exists(input)

    def create(self, job: NewJob, deadline: Deadline) -> ProviderJob:
        """One POST, never repeated, whatever happens."""
        sources = job.sources or ((job.input,) if job.input else ())
        table = next((uri for uri in sources if uri.startswith("bq://")), None)
        body: dict[str, Any] = {
            "displayName": job.display_name,
            "model": job.model if "/" in job.model else f"publishers/google/models/{job.model}",
            "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": table}}
            if table
            else {"instancesFormat": "jsonl", "gcsSource": {"uris": list(sources)}},
        }
        target = job.destination or ("bq://" if table else "gs://")
        if target.startswith("bq://"):
            uri = self._tables.output(job.display_name, job.destination)
            body["outputConfig"] = {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": uri}}
        else:
            uri = self._storage.output(job.display_name, job.destination)
            body["outputConfig"] = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": uri}}
        with failures():
            return _provider_job(call(self._client, "post", _JOBS, body, ONCE, deadline))

    def get(self, name: str) -> ProviderJob:
        """GET of the job."""
        with failures():
            return _provider_job(call(self._client, "get", name))

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        """One page of the location's jobs, newest first; only those of a name where one is given."""
        query = {"pageSize": str(_PAGE_SIZE)}
        if page_token:
            query["pageToken"] = page_token
        if display_name is not None:
            query["filter"] = f'display_name="{display_name}"'
        with failures():
            reply = as_page(call(self._client, "get", f"{_JOBS}?{urlencode(query)}"))
            jobs = self._pages.read(reply.get(_JOBS, []), _provider_job, needed=display_name)
            return jobs, as_text(reply.get("nextPageToken")) or None

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        """One page of the files that we wrote."""
        return self._storage.inputs(page_token)

    def unreadable_items(self) -> int:
        """How many items of pages were passed over."""
        return len(self._pages.unreadable)

    def cancel(self, name: str) -> None:
        """POST :cancel."""
        cancel(self._client, name)

    def delete(self, name: str) -> None:
        """Deletes the output first, as only the job says where it is, then the job."""
        try:
            job = self.get(name)
            if job.output is not None:
                self._storage.delete_output(job.output)
                self._tables.delete_output(job.output)
            call(self._client, "delete", name)
        except Missing:
            return
        except Refused as refusal:
            # A live job cannot be deleted, and one that is cancelled lives on for a while.
            raise Unavailable(refusal.error, http_status=refusal.http_status) from refusal

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """Deletes a file that we wrote."""
        self._storage.delete_input(input)

    def clear(self, display_name: str) -> None:
        """Deletes predictions of which the job never told."""
        self._storage.clear(display_name)

    def parts(self, output: Output) -> list[Part] | None:
        """The shards in Cloud Storage; a table is downloaded."""
        return self._storage.parts(output.location) if output.location.startswith("gs://") else None

    def read(self, part: str, start: int, end: int) -> bytes:
        """Lines of a shard, by ranged reads."""
        return self._storage.read(part, start, end)

    def download(self, output: Output, sink: IO[bytes]) -> None:
        """The rows of an output table, page by page."""
        self._tables.download(output.location, output.key, sink)

    def rows(self, block: bytes) -> list[OutputRow]:
        """Reads lines of a predictions file."""
        return _lines.many(block)

    def row(self, line: bytes) -> OutputRow:
        """Reads one line of a predictions file."""
        return _lines.one(line)


def _unset(variable: str, what: str) -> Denied:
    return Denied(ResultError(reason="NOT_CONFIGURED", message=f"Vertex AI: set {variable} {what}"))


def _provider_job(value: object) -> ProviderJob:
    """Reads a BatchPredictionJob. Raises `ValueError` for one without a usable name."""
    job = as_object(value)
    name = job.get("name")
    # It goes into a URL's path.
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"the provider answered with an unusable name: {name!r:.100}")
    stats = as_object(job.get("completionStats"))
    done, failed, left = (as_count(stats.get(f"{kind}Count")) for kind in ("successful", "failed", "incomplete"))
    raw = str(job.get("state") or "")
    error = as_object(job.get("error"))
    return ProviderJob(
        name=name,
        display_name=as_text(job.get("displayName")),
        state=job_state(raw),
        provider_state=raw,
        output=_output(as_object(job.get("outputInfo"))),
        error=status_error(error) if error else None,
        model=as_text(job.get("model")),
        requests=done + failed + left,
        done_requests=done + failed,
        create_time=as_text(job.get("createTime")),
    )


def _output(info: Any) -> str | None:
    """Where the output lies; a table may come as its name beside its dataset's, or as both in one."""
    if folder := as_text(info.get("gcsOutputDirectory")):
        return folder
    table = as_text(info.get("bigqueryOutputTable"))
    if not table:
        return None
    dataset = (as_text(info.get("bigqueryOutputDataset")) or "").removeprefix("bq://")
    table = table.removeprefix("bq://")
    return f"bq://{table}" if "." in table else f"bq://{dataset}.{table}"


def _output_row(row: _Row) -> OutputRow:
    """A failed row has a status; an empty response is none."""
    response = NO_RESPONSE if bytes(row.response).strip() == b"{}" else row.response
    return OutputRow(row.key, response, _row_error(row.status) if row.status else None)


_lines = RowReader(_Row, _output_row)


def _row_error(status: str) -> ResultError:
    """A row's status: `Bad Request: {"error": {"code": 400, ...}}`, or words alone."""
    match = _FAILED_ROW.fullmatch(status)
    try:
        found = as_object(as_object(msgspec.json.decode(match[1] if match else "{}")).get("error"))
    except (msgspec.DecodeError, RecursionError):
        found = {}
    if not found:
        return ResultError(reason="ERROR", message=status)
    error = status_error(found)
    # The code here is HTTP's; everywhere else it is gRPC's.
    return msgspec.structs.replace(error, code=GRPC_CODES.get(error.reason, error.code))
