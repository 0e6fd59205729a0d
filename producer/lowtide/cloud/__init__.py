"""Reads requests from users' own places in Google Cloud: Cloud Storage and BigQuery."""

from __future__ import annotations

from lowtide.cloud.clients import ANONYMOUS, bigquery_client, credentials, storage_client
from lowtide.cloud.sources import Limits, check_destination, open_source

__all__ = [
    "ANONYMOUS",
    "Limits",
    "bigquery_client",
    "check_destination",
    "credentials",
    "open_source",
    "storage_client",
]
