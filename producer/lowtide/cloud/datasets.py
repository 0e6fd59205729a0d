"""Multimodal datasets of Vertex AI: names for tables of BigQuery, with the way to read requests in them.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.datasets and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/datasets
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lowtide.addresses import parse_dataset
from lowtide.cloud.clients import rest_get
from lowtide.errors import InvalidBatch
from lowtide.settings import Settings

_HOSTS = {"global": "aiplatform.googleapis.com"} | {
    wide: f"aiplatform.{wide}.rep.googleapis.com" for wide in ("us", "eu")
}


class RequestTable(NamedTuple):
    """The table of a dataset, and where the requests and the keys are in it."""

    uri: str
    request: str
    """The column with the requests."""
    key: str | None
    """The column with the keys; None: the dataset names none."""


def read_dataset(name: str, settings: Settings) -> RequestTable:
    """Asks Vertex AI for a dataset's table (GET).

    Raises `InvalidBatch` for a dataset whose requests cannot be read before the job, and the errors of Google's client.
    """
    dataset = parse_dataset(name)
    location = settings.google_cloud_location
    if dataset.location != location:
        raise InvalidBatch(f"{name} is in {dataset.location}, and GOOGLE_CLOUD_LOCATION is {location}")
    reply = _object(rest_get(f"{endpoint(settings)}/v1beta1/{name}", settings))
    metadata = _object(reply.get("metadata"))
    return RequestTable(_table(name, metadata), _request_column(name, metadata), _text(metadata.get("keyColumnName")))


def endpoint(settings: Settings) -> str:
    """Returns the URL of Vertex AI in the settings' location, without a slash at its end."""
    location = settings.google_cloud_location
    host = _HOSTS.get(location, f"{location}-aiplatform.googleapis.com")
    return (settings.google_vertex_base_url or f"https://{host}").rstrip("/")


def _table(name: str, metadata: Mapping[str, Any]) -> str:
    source = _object(_object(metadata.get("inputConfig")).get("bigquerySource"))
    uri = _text(source.get("uri"))
    if uri is None or not uri.startswith("bq://"):
        raise InvalidBatch(f"{name} has no table of BigQuery: only multimodal datasets can be used")
    return uri


def _request_column(name: str, metadata: Mapping[str, Any]) -> str:
    config = _object(metadata.get("geminiRequestReadConfig"))
    if config.get("templateConfig") or metadata.get("geminiTemplateConfigSource"):
        raise InvalidBatch(
            f"{name} makes its requests from a template, so they cannot be checked, and have no keys: assemble the "
            "dataset into a table, add a column of keys, and submit the table (bq://project.dataset.table)"
        )
    return _text(config.get("assembledRequestColumnName")) or "request"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
