"""The wire format of the Developer API: its messages for batches and files.

Source: https://ai.google.dev/api/batch-api and https://ai.google.dev/api/files
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from lowtide_emulator.engine import Job, JobState
from lowtide_emulator.faults import kinds
from lowtide_emulator.gemini.file_store import StoredFile
from lowtide_emulator.webhooks import WebhookConfig
from lowtide_emulator.wire import either, timestamp

BATCHES = "batches"
"""The collection of all batches: the start of their names."""
TYPES = "type.googleapis.com/google.ai.generativelanguage.v1main."


class InlineRows(msgspec.Struct, forbid_unknown_fields=True):
    """The inner one of the two `requests`."""

    requests: list[Raw]


class InputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The input of a batch: inline rows, or the name of a file."""

    requests: InlineRows | None = None
    file_name_camel: str | None = msgspec.field(default=None, name="fileName")
    file_name_snake: str | None = msgspec.field(default=None, name="file_name")

    @property
    def file_name(self) -> str | None:
        """The name of the input file, `files/…`."""
        return either(self.file_name_camel, self.file_name_snake)


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """The value of `batch` in a create call."""

    name: str | None = None
    model: str | None = None
    priority: str | int | None = None
    display_name_camel: str | None = msgspec.field(default=None, name="displayName")
    display_name_snake: str | None = msgspec.field(default=None, name="display_name")
    input_camel: InputConfig | None = msgspec.field(default=None, name="inputConfig")
    input_snake: InputConfig | None = msgspec.field(default=None, name="input_config")
    webhook_camel: WebhookConfig | None = msgspec.field(default=None, name="webhookConfig")
    webhook_snake: WebhookConfig | None = msgspec.field(default=None, name="webhook_config")

    @property
    def display_name(self) -> str:
        """The name that the caller gave; empty if it gave none."""
        return either(self.display_name_camel, self.display_name_snake) or ""

    @property
    def webhook_config(self) -> WebhookConfig | None:
        """The batch's own webhook; None if it has none."""
        return either(self.webhook_camel, self.webhook_snake)

    @property
    def input_config(self) -> InputConfig:
        """The input of the batch."""
        return either(self.input_camel, self.input_snake) or InputConfig()


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a create call."""

    batch: BatchBody


class FileBody(msgspec.Struct):
    """The value of `file` in a call that starts an upload."""

    name: str = ""
    display_name_camel: str | None = msgspec.field(default=None, name="displayName")
    display_name_snake: str | None = msgspec.field(default=None, name="display_name")
    mime_camel: str | None = msgspec.field(default=None, name="mimeType")
    mime_snake: str | None = msgspec.field(default=None, name="mime_type")
    size_camel: int | str | None = msgspec.field(default=None, name="sizeBytes")
    size_snake: int | str | None = msgspec.field(default=None, name="size_bytes")


class UploadBody(msgspec.Struct):
    """The body of a call that starts an upload."""

    file: FileBody = msgspec.field(default_factory=FileBody)


def operation(job: Job, now: float, *, results: bool) -> dict[str, object]:
    """Returns a job as a long-running operation.

    results: whether to include inline results, which a list does not.
    """
    moment = job.at(now)
    name = job.name
    kind = "EmbedContentBatch" if job.embeddings else "GenerateContentBatch"
    succeeded, failed, pending = job.counts(now)
    stats = {
        "requestCount": job.requests,
        "successfulRequestCount": succeeded,
        "failedRequestCount": failed,
        "pendingRequestCount": pending,
    }
    metadata: dict[str, object] = {
        "@type": TYPES + kind,
        "name": name,
        "model": job.model,
        "displayName": job.display_name,
        "state": f"BATCH_STATE_{moment.state.value}",
        "createTime": timestamp(job.created),
        "updateTime": timestamp(moment.updated),
        "batchStats": {field: str(count) for field, count in stats.items() if count},
    }
    if not job.display_name:
        del metadata["displayName"]
    if job.source is not None:
        metadata["inputConfig"] = {"fileName": job.source}
    reply: dict[str, object] = {"name": name, "metadata": metadata}
    strange = job.fault(kinds.State)
    if strange is not None and (strange.seconds is None or now < job.created + strange.seconds):
        metadata["state"] = strange.state
        return reply
    if moment.ended is None:
        return reply
    reply["done"] = True
    metadata["endTime"] = timestamp(moment.ended)
    output = _output(job, now, results=results)
    if output is not None:
        metadata["output"] = output
    if moment.state is JobState.SUCCEEDED:
        if output is not None:
            reply["response"] = {"@type": TYPES + kind + "Output", **output}
    else:
        reply["error"] = _error(job, moment.state)
    return reply


def _output(job: Job, now: float, *, results: bool) -> dict[str, object] | None:
    if not job.has_results(now):
        return None
    if not job.inline:
        return {"responsesFile": f"files/batch-{job.id}"}
    if not results:
        return None
    lines = job.output_path.read_bytes().splitlines()
    rows = {"inlinedResponses": Raw(b"[" + b",".join(lines) + b"]")}
    return {"inlinedEmbedContentResponses" if job.embeddings else "inlinedResponses": rows}


def _error(job: Job, state: JobState) -> dict[str, object]:
    fail = job.fault(kinds.Fail)
    if state is JobState.FAILED and fail is not None:
        return {"code": fail.code, "message": fail.message}
    if state is JobState.CANCELLED:
        return {"code": 13, "message": f"Batch {job.id} was cancelled."}
    if state is JobState.EXPIRED:
        return {"code": 4, "message": f"Batch {job.id} has expired before it was done."}
    failure = job.progress.failure
    return {"code": 13, "message": "Internal error encountered." if failure is None else failure.message}


class RegisterBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call that registers objects of Cloud Storage."""

    uris: list[str] = []


def file_resource(file: StoredFile, *, active: bool, base: str) -> dict[str, object]:
    """Returns a file as a resource of the Files API. Only one that the service made can be downloaded.

    active: whether its processing is finished.
    base: the URL of the API, with its version.
    """
    resource: dict[str, object] = {
        "name": f"files/{file.id}",
        "displayName": file.display_name,
        "mimeType": file.mime_type,
        "sizeBytes": str(file.size),
        "createTime": timestamp(file.created),
        "updateTime": timestamp(max(file.created, file.active) if active else file.created),
        "expirationTime": timestamp(file.expires),
        "sha256Hash": file.sha256,
        "uri": f"{base}/files/{file.id}",
        "downloadUri": f"{base}/files/{file.id}:download?alt=media" if file.source == "GENERATED" else "",
        "state": "ACTIVE" if active else "PROCESSING" if file.failure is None else "FAILED",
        "source": file.source,
    }
    if file.failure is not None:
        resource["error"] = {"code": file.failure.code, "message": file.failure.message}
    return {field: value for field, value in resource.items() if value not in ("", "0")}
