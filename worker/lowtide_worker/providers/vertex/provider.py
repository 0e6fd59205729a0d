"""The provider for Vertex AI batch prediction.

A job reads its requests from a file that Lowtide wrote into Cloud Storage, or from the user's own objects, BigQuery
table or multimodal dataset. Its output is read from where the job wrote it: from Cloud Storage by byte ranges, from
BigQuery page by page.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import IO, Any
from urllib.parse import urlencode

import msgspec

from lowtide.addresses import is_dataset
from lowtide.cloud import credentials
from lowtide.models import ResultError
from lowtide.states import Kind
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
    Uploaded,
    Writer,
)
from lowtide_worker.providers.vertex.datasets import VertexDatasets
from lowtide_worker.providers.vertex.storage import VertexStorage
from lowtide_worker.providers.vertex.tables import VertexTables
from lowtide_worker.settings import WorkerSettings

_PAGE_SIZE = 100
_JOBS = "batchPredictionJobs"
_NAME = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/batchPredictionJobs/[\w-]+", re.ASCII)
_FAILED_ROW = re.compile(r"[^{]*(\{.*\})[^}]*", re.DOTALL)


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A line of a predictions file. A failed row has a `status`, which should be a string."""

    key: str | None = None
    response: msgspec.Raw = NO_RESPONSE
    status: Any = None


class VertexProvider:
    """The provider of batch prediction jobs of Vertex AI. See `Provider` for each method.

    Raises `Denied` if the settings lack the project or the folder, or if there are no credentials.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.google_cloud_project is None:
            raise _unset("GOOGLE_CLOUD_PROJECT", "to the project whose Vertex AI runs the jobs")
        if settings.vertex_storage is None:
            raise _unset("LOWTIDE_VERTEX_STORAGE", "to gs://bucket/folder, where workers keep jobs' files")
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
        self._datasets = VertexDatasets(self._client, self._tables)

    def upload(self, display_name: str, data: IO[bytes]) -> Uploaded:
        """Writes request lines into Lowtide's folder, over a file of the same name; its name is a URI."""
        return Uploaded(self._storage.upload(display_name, data), ready=True)

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Returns True, since an object is complete as soon as it exists. Raises `Missing` if it does not."""
        return self._storage.exists(input)

    def pin(self, display_name: str, sources: Sequence[Part]) -> Sequence[str]:
        """Returns copies of the objects, made by Cloud Storage; or the table or dataset, if it is as it was."""
        if sources[0].name.startswith("gs://"):
            return self._storage.pin(display_name, sources)
        self.confirm(sources, inf)
        return [source.name for source in sources]

    def confirm(self, sources: Sequence[Part], until: float) -> None:
        """Compares the time of a table's last change with that at submit. Copies of objects cannot have changed."""
        for source in sources:
            if source.name.startswith("gs://") or source.generation is None:
                continue
            try:
                changed = self._tables.last_change(self._datasets.table(source.name))
            except Missing as missing:
                raise _changed(source.name, "is gone") from missing
            if changed != source.generation and (changed or 0) <= until * 1000:
                raise _changed(source.name, "was changed")

    def has_webhooks(self, kind: Kind) -> bool:  # noqa: ARG002 - the Protocol's
        """Returns False: Vertex AI has no webhooks."""
        return False

    def authorize(self) -> None:
        """Fetches an access token, if there is none or it expires soon. The SDK keeps it for the next calls."""
        with failures():
            self._client._api_client._access_token()  # noqa: SLF001 - there is no public way to fetch it early

    def create(self, job: NewJob, deadline: Deadline) -> ProviderJob:
        """Creates a job by one POST, which is never repeated."""
        sources = job.sources or (job.input or "",)
        body: dict[str, Any] = {
            "displayName": job.display_name,
            "model": job.model if "/" in job.model else f"publishers/google/models/{job.model}",
            "inputConfig": _input_config(sources),
            "outputConfig": self._output_config(job, sources[0]),
        }
        with failures():
            return _provider_job(call(self._client, "post", _JOBS, body, ONCE, deadline))

    def _output_config(self, job: NewJob, source: str) -> dict[str, Any]:
        """Returns the place of a job's output. A job that reads a dataset makes a dataset, on a table that we name."""
        target = job.destination or ("gs://" if source.startswith("gs://") else "bq://")
        if target.startswith("gs://"):
            prefix = self._storage.output(job.display_name, job.destination)
            return {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": prefix}}
        name = self._tables.output(job.display_name, job.destination, again=job.again)
        table = {"bigqueryDestination": {"outputUri": name}}
        if not is_dataset(source):
            return {"predictionsFormat": "bigquery", **table}
        dataset = {"displayName": job.display_name, **table}
        return {"predictionsFormat": "vertex-dataset", "vertexMultimodalDatasetDestination": dataset}

    def get(self, name: str) -> ProviderJob:
        """Fetches the job (GET)."""
        with failures():
            return _provider_job(call(self._client, "get", name))

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        """Returns a page of the location's jobs, newest first; with a display name, only the jobs that have it."""
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
        """Returns a page of the request files in Lowtide's folder."""
        return self._storage.inputs(page_token)

    def unreadable_items(self) -> int:
        """Returns how many items of list pages were skipped as unreadable."""
        return len(self._pages.unreadable)

    def cancel(self, name: str) -> None:
        """Cancels a job (POST `:cancel`)."""
        cancel(self._client, name)

    def delete(self, name: str) -> None:
        """Deletes a job: first its output, as only the job knows the location, then the job itself."""
        try:
            job = self.get(name)
            if job.output is not None and job.display_name:
                for places in (self._datasets, self._storage, self._tables):
                    places.delete_output(job.output, job.display_name)
            call(self._client, "delete", name)
        except Missing:
            return
        except Refused as refusal:
            # A live job cannot be deleted, and a cancelled one stays live for a while.
            raise Unavailable(refusal.error, http_status=refusal.http_status) from refusal

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """Deletes a request file in Lowtide's folder."""
        self._storage.delete_input(input)

    def clear(self, display_name: str) -> None:
        """Deletes pinned sources, and predictions in Lowtide's folder whose location the job never reported."""
        self._storage.clear(display_name)

    def parts(self, output: Output) -> list[Part] | None:
        """Returns the shards in Cloud Storage; None for a table, which is downloaded."""
        return self._storage.parts(output) if output.location.startswith("gs://") else None

    def read(self, part: Part, start: int, end: int) -> bytes:
        """Returns whole lines of one generation of an object, by ranged reads."""
        return self._storage.read(part, start, end)

    def resumable(self, output: Output) -> bool:  # noqa: ARG002 - the Protocol's
        """Returns False: the rows of a table are in no order."""
        return False

    def download(self, output: Output, sink: Writer) -> None:
        """Writes the rows of an output table as lines, page by page."""
        self._tables.download(self._datasets.table(output.location), output, sink)

    def rows(self, block: bytes) -> list[OutputRow]:
        """Decodes whole lines of a predictions file."""
        return _lines.many(block)

    def row(self, line: bytes) -> OutputRow:
        """Decodes one line of a predictions file."""
        return _lines.one(line)


def _input_config(sources: Sequence[str]) -> dict[str, Any]:
    [first, *_] = sources
    if is_dataset(first):
        return {"instancesFormat": "vertex-dataset", "vertexMultimodalDatasetSource": {"datasetName": first}}
    if first.startswith("bq://"):
        return {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": first}}
    return {"instancesFormat": "jsonl", "gcsSource": {"uris": list(sources)}}


def _changed(source: str, how: str) -> Refused:
    message = f"{source} {how} after submit; leave a source as it is until its batch has ended, and submit again"
    return Refused(ResultError(reason="SOURCE_CHANGED", message=message, code=9))


def _unset(variable: str, what: str) -> Denied:
    return Denied(ResultError(reason="NOT_CONFIGURED", message=f"Vertex AI: set {variable} {what}"))


def _provider_job(value: object) -> ProviderJob:
    """Returns the job that a BatchPredictionJob describes. Raises `ValueError` for one without a usable name."""
    job = as_object(value)
    name = job.get("name")
    # The name goes into a URL's path.
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
    """Returns the URI of the output. A table comes either with its dataset's name in it, or beside it.

    The name of a multimodal dataset goes first, because the dataset must be deleted too.
    """
    if (dataset := as_text(info.get("vertexMultimodalDatasetName"))) and is_dataset(dataset):
        return dataset
    if folder := as_text(info.get("gcsOutputDirectory")):
        return folder
    table = as_text(info.get("bigqueryOutputTable"))
    if not table:
        return None
    dataset = (as_text(info.get("bigqueryOutputDataset")) or "").removeprefix("bq://")
    table = table.removeprefix("bq://")
    return f"bq://{table}" if "." in table else f"bq://{dataset}.{table}"


def _output_row(row: _Row) -> OutputRow:
    """Returns the row of a line. A failed row has a status; an empty response counts as none."""
    text = bytes(row.response).strip()
    response = NO_RESPONSE if text == b"{}" else row.response
    status = row.status
    if not status or (not isinstance(status, str) and text not in (b"{}", b"null")):
        # A response was paid for. Only a status of the documented form, a string, says that it is none.
        return OutputRow(row.key, response)
    return OutputRow(row.key, response, _row_error(status if isinstance(status, str) else _shown(status)))


def _shown(status: object) -> str:
    """Returns a status that is no string in the form of one that is."""
    found = as_object(status)
    return msgspec.json.encode({"error": found} if "message" in found else status).decode()


_lines = RowReader(_Row, _output_row)


def _row_error(status: str) -> ResultError:
    """Returns the error of a row's status: `Bad Request: {"error": {"code": 400, ...}}`, or plain text."""
    match = _FAILED_ROW.fullmatch(status)
    try:
        found = as_object(as_object(msgspec.json.decode(match[1] if match else "{}")).get("error"))
    except (msgspec.DecodeError, RecursionError):
        found = {}
    if not found:
        return ResultError(reason="ERROR", message=status)
    error = status_error(found)
    # The code here is an HTTP status; results have gRPC codes.
    return msgspec.structs.replace(error, code=GRPC_CODES.get(error.reason, error.code))
