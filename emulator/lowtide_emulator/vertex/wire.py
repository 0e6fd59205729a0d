"""The wire format of Vertex AI: its messages for batch prediction jobs.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import cast

import msgspec

from lowtide_emulator.engine import JobState
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.jobs import GcsOutput, PredictionJob
from lowtide_emulator.wire import timestamp

PUBLISHER = "publishers/google/models/"
"""The start of the name of Google's own models."""
OPAQUE = frozenset({"labels", "modelParameters"})
"""Fields with content of the caller's, whose keys are not field names."""

_UNDERSCORE = re.compile(r"(?<=[A-Za-z0-9])_([a-z0-9])")


class _Message(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A message in camelCase; see `camel_keys`."""


class GcsSource(_Message):
    """Files of JSON lines."""

    uris: list[str] = []


class BigQuerySource(_Message):
    """A table."""

    input_uri: str = ""


class DatasetSource(_Message):
    """A multimodal dataset, `projects/…/locations/…/datasets/…`."""

    dataset_name: str = ""


class InputConfig(_Message):
    """The input of a job."""

    instances_format: str = ""
    gcs_source: GcsSource | None = None
    bigquery_source: BigQuerySource | None = msgspec.field(default=None, name="bigquerySource")
    vertex_multimodal_dataset_source: DatasetSource | None = None


class GcsDestination(_Message):
    """A folder for files of JSON lines."""

    output_uri_prefix: str = ""


class BigQueryDestination(_Message):
    """A table, or a dataset in which a table is created."""

    output_uri: str = ""


class DatasetDestination(_Message):
    """A multimodal dataset that the job makes, and the table that has its rows."""

    bigquery_destination: BigQueryDestination | None = msgspec.field(default=None, name="bigqueryDestination")
    display_name: str = ""


class OutputConfig(_Message):
    """The output of a job."""

    predictions_format: str = ""
    gcs_destination: GcsDestination | None = None
    bigquery_destination: BigQueryDestination | None = msgspec.field(default=None, name="bigqueryDestination")
    vertex_multimodal_dataset_destination: DatasetDestination | None = None


class JobBody(_Message):
    """The body of a create call. Fields of type `object` are accepted but not used."""

    name: str = ""
    display_name: str = ""
    model: str = ""
    input_config: InputConfig | None = None
    output_config: OutputConfig | None = None
    labels: dict[str, str] = {}
    model_version_id: object = None
    model_parameters: object = None
    instance_config: object = None
    dedicated_resources: object = None
    service_account: object = None
    encryption_spec: object = None
    manual_batch_tuning_parameters: object = None
    generate_explanation: object = None
    explanation_spec: object = None
    disable_container_logging: object = None


class BigQueryUri(_Message):
    """The table of a dataset."""

    uri: str = ""


class DatasetInput(_Message):
    """The source of a dataset's rows."""

    bigquery_source: BigQueryUri = msgspec.field(default_factory=BigQueryUri, name="bigquerySource")


class ReadConfig(_Message):
    """The way to read requests: a template that makes them, or the column that has them."""

    template_config: object = None
    assembled_request_column_name: str | None = None


class DatasetMetadata(_Message):
    """The metadata of a multimodal dataset."""

    input_config: DatasetInput = msgspec.field(default_factory=DatasetInput)
    gemini_request_read_config: ReadConfig | None = None
    gemini_template_config_source: object = None
    key_column_name: str | None = None


class DatasetBody(_Message):
    """The body of a call that creates a dataset."""

    display_name: str = ""
    metadata_schema_uri: str = ""
    metadata: DatasetMetadata = msgspec.field(default_factory=DatasetMetadata)
    description: object = None
    labels: object = None


def camel_keys(value: object) -> object:
    """Returns a JSON value with all field names in camelCase; callers may use either spelling."""
    if isinstance(value, list):
        return [camel_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    spelled: dict[str, object] = {}
    for name, inner in cast("dict[str, object]", value).items():
        camel = _UNDERSCORE.sub(lambda match: match[1].upper(), name)
        spelled[camel] = inner if camel in OPAQUE else camel_keys(inner)
    return spelled


def processed_time(seconds: float) -> str:
    """Returns a time in the form that result rows have."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def state_name(job: PredictionJob, now: float) -> str:
    """Returns the state that a job reports, which a fault can change."""
    strange = job.fault(kinds.State)
    if strange is not None and (strange.seconds is None or now < job.created + strange.seconds):
        return strange.state.replace("BATCH_STATE_", "JOB_STATE_")
    return f"JOB_STATE_{job.at(now).state.value}"


def resource(job: PredictionJob, now: float) -> dict[str, object]:
    """Returns a job as a BatchPredictionJob."""
    moment = job.at(now)
    state = state_name(job, now)
    reply: dict[str, object] = {
        "name": job.name,
        "displayName": job.display_name,
        "model": job.model,
        "inputConfig": job.input_config,
        "outputConfig": job.output_config,
        "state": state,
        "createTime": timestamp(job.created, digits=6),
        "updateTime": timestamp(moment.updated, digits=6),
        "modelVersionId": "1",
    }
    if job.labels:
        reply["labels"] = job.labels
    started = now >= job.starts and job.ending.at >= job.starts
    if started:
        reply["startTime"] = timestamp(job.starts, digits=6)
    if state != f"JOB_STATE_{moment.state.value}":
        return reply
    if started and moment.state is not JobState.PENDING:
        reply["completionStats"] = _stats(job, now)
    if moment.ended is None:
        return reply
    reply["endTime"] = timestamp(moment.ended, digits=6)
    if job.names_results(now):
        reply["outputInfo"] = _output_info(job)
    error = _error(job, moment.state)
    if error is not None:
        reply["error"] = error
    return reply


def _stats(job: PredictionJob, now: float) -> dict[str, str]:
    if not job.requests:
        return {"incompleteCount": "-1"}
    succeeded, failed, rest = job.counts(now)
    counts = {"successfulCount": succeeded, "failedCount": failed, "incompleteCount": rest}
    return {field: str(count) for field, count in counts.items() if count}


def _output_info(job: PredictionJob) -> dict[str, str]:
    if isinstance(job.output, GcsOutput):
        return {"gcsOutputDirectory": job.output.folder}
    if job.output_dataset is not None:
        return {"vertexMultimodalDatasetName": job.output_dataset}
    # The full name of the table, because the SDK and its users read it from here.
    return {"bigqueryOutputTable": f"bq://{job.output.table}"}


def _error(job: PredictionJob, state: JobState) -> dict[str, object] | None:
    code, message = 13, "Internal error encountered."
    match state:
        case JobState.CANCELLED:
            code, message = 1, "CANCELED"
        case JobState.EXPIRED:
            code, message = 4, f"The job {job.name} has expired before it was done."
        case JobState.FAILED:
            if (failure := job.progress.failure) is not None:
                code, message = failure.code, failure.message
            elif (fail := job.fault(kinds.Fail)) is not None:
                code, message = fail.code, fail.message
        case _:
            return None
    return {"code": code, "message": message}
