"""The checks for Vertex AI: the bucket, the dataset and the places that batches may name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from lowtide import LowtideError
from lowtide.addresses import Objects, Table, parse_objects, parse_table
from lowtide.cloud import bigquery_client, storage_client
from lowtide.extras import install
from lowtide.states import ProviderName
from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.extras import installed
from lowtide_worker.providers import Denied, ProviderError, Unavailable
from lowtide_worker.settings import WorkerSettings

_LOGIN = "gcloud auth application-default login, or LOWTIDE_VERTEX_CREDENTIALS; see docs/how-to.md"


def check_vertex(settings: WorkerSettings) -> list[Finding]:
    """Returns the findings about Vertex AI's storage, none if Vertex AI is not configured.

    Each answer may take as long as the settings' provider timeout.
    """
    used = settings.vertex_storage or settings.vertex_dataset or settings.vertex_locations
    if settings.provider is not ProviderName.VERTEX and not used:
        return []
    return [*_places(settings), _locations(settings.vertex_locations)]


def _places(settings: WorkerSettings) -> list[Finding]:
    wanted: dict[str, Callable[[], Finding]] = {}
    if settings.vertex_storage:
        bucket = parse_objects(settings.vertex_storage)
        wanted["Bucket"] = lambda: _bucket(settings, bucket)
    if settings.vertex_dataset:
        dataset = parse_table(settings.vertex_dataset)
        wanted["Dataset"] = lambda: _dataset(settings, dataset)
    if wanted and not installed("vertex"):
        seen = "not checked: Google's clients are not installed"
        return [Finding(check, Health.FAIL, seen, install("worker", "vertex")) for check in wanted]
    if wanted and settings.google_cloud_project is None:
        advice = "set it to the project that is billed for them"
        seen = "not checked: GOOGLE_CLOUD_PROJECT is not set"
        return [Finding(check, Health.FAIL, seen, advice) for check in wanted]
    findings = []
    for check, find in wanted.items():
        try:
            findings.append(find())
        except LowtideError as error:  # an unreadable file of credentials
            findings.append(Finding(check, Health.FAIL, str(error)))
    return findings


def _bucket(settings: WorkerSettings, folder: Objects) -> Finding:
    """Lists, writes, reads and deletes in the folder, as workers do."""
    from lowtide_worker.providers.vertex.storage import cloud_failures  # deferred: needs the extra

    timeout = settings.provider_timeout_seconds
    place = folder.under(f"doctor-{secrets.token_hex(8)}")
    doing = "list"
    try:
        with cloud_failures(folder):
            client = storage_client(settings)
            # No retries: a person waits for the answer.
            prefix = f"{folder.path}/" if folder.path else ""
            list(client.list_blobs(folder.bucket, prefix=prefix, max_results=1, timeout=timeout, retry=None))
            blob = client.bucket(place.bucket).blob(place.path)
            doing = "write"
            blob.upload_from_string(b"ebb", timeout=timeout, retry=None)
            doing = "read"
            same = blob.download_as_bytes(timeout=timeout, retry=None) == b"ebb"
            doing = "delete"
            blob.delete(timeout=timeout, retry=None)
    except ProviderError as error:
        seen = f"there is no bucket {folder.bucket}" if error.http_status == 404 else f"cannot {doing}: {error}"
        return Finding("Bucket", Health.FAIL, seen, _advice_on_bucket(error, folder, settings))
    if not same:
        return Finding("Bucket", Health.FAIL, f"{folder} returns other bytes than were written")
    return Finding("Bucket", Health.OK, f"{folder}: listed, written, read and deleted")


def _advice_on_bucket(error: ProviderError, folder: Objects, settings: WorkerSettings) -> str:
    name, emulated = f"gs://{folder.bucket}", os.environ.get("STORAGE_EMULATOR_HOST")
    if error.http_status == 404:
        if emulated:
            return f"create it at STORAGE_EMULATOR_HOST ({emulated}), or fix LOWTIDE_VERTEX_STORAGE"
        region = settings.google_cloud_location
        return f"gcloud storage buckets create {name} --location={region}, or fix LOWTIDE_VERTEX_STORAGE"
    if error.http_status == 403:
        return (
            "the workers' account needs Storage Object User there: gcloud storage buckets add-iam-policy-binding "
            f"{name} --member=serviceAccount:... --role=roles/storage.objectUser"
        )
    return _advice_on_access(error, "STORAGE_EMULATOR_HOST")


def _dataset(settings: WorkerSettings, dataset: Table) -> Finding:
    from lowtide_worker.providers.vertex.storage import cloud_failures

    try:
        with cloud_failures(dataset):
            client = bigquery_client(settings)
            client.get_dataset(
                f"{dataset.project}.{dataset.dataset}",
                timeout=settings.provider_timeout_seconds,
                retry=None,  # type: ignore[arg-type] # None is allowed: a single try
            )
    except ProviderError as error:
        seen = f"there is no dataset {dataset}" if error.http_status == 404 else f"cannot get: {error}"
        return Finding("Dataset", Health.FAIL, seen, _advice_on_dataset(error, dataset, settings))
    return Finding("Dataset", Health.OK, f"{dataset} exists")


def _advice_on_dataset(error: ProviderError, dataset: Table, settings: WorkerSettings) -> str:
    emulated = os.environ.get("BIGQUERY_EMULATOR_HOST")
    if error.http_status == 404:
        if emulated:
            return f"create it at BIGQUERY_EMULATOR_HOST ({emulated}), or fix LOWTIDE_VERTEX_DATASET"
        name = f"{dataset.project}:{dataset.dataset}"
        return f"bq --location={settings.google_cloud_location} mk --dataset {name}, or fix LOWTIDE_VERTEX_DATASET"
    if error.http_status == 403:
        return (
            "the workers' account needs BigQuery Data Editor there: GRANT `roles/bigquery.dataEditor` ON SCHEMA "
            f'`{dataset.project}.{dataset.dataset}` TO "serviceAccount:..."'
        )
    return _advice_on_access(error, "BIGQUERY_EMULATOR_HOST")


def _advice_on_access(error: ProviderError, emulator: str) -> str:
    if isinstance(error, Denied) or error.http_status == 401:
        return _LOGIN
    if isinstance(error, Unavailable):
        return f"check the network{f' and {emulator}' if os.environ.get(emulator) else ''}"
    return ""


def _locations(locations: list[str]) -> Finding:
    if not locations:
        seen = "LOWTIDE_VERTEX_LOCATIONS is not set: batches cannot name gs:// or bq:// places"
        return Finding("Locations", Health.OK, seen)
    return Finding("Locations", Health.OK, f"batches may name places in {', '.join(locations)}")
