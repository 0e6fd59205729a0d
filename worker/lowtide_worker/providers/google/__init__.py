"""The shared part of Google's two batch APIs: calls, kinds of failure, and the JSON they have in common.

| module | holds |
|---|---|
| `client` | the HTTP client, bounded in time and size, and `call` |
| `downloads` | downloads of files, by byte ranges where they are answered |
| `failures` | the table from HTTP statuses and the SDK's errors to the kinds of `ProviderError` |
| `wire` | readers of single JSON values: states, statuses, texts, counts |
| `readers` | readers of list pages and of output lines |
"""

from __future__ import annotations

from lowtide_worker.providers.google.client import ONCE, GoogleClient, call, cancel
from lowtide_worker.providers.google.downloads import download
from lowtide_worker.providers.google.failures import failure, failures
from lowtide_worker.providers.google.readers import PageReader, RowReader, as_page
from lowtide_worker.providers.google.wire import (
    GRPC_CODES,
    as_count,
    as_object,
    as_text,
    as_time,
    either,
    job_state,
    status_error,
)

__all__ = [
    "GRPC_CODES",
    "ONCE",
    "GoogleClient",
    "PageReader",
    "RowReader",
    "as_count",
    "as_object",
    "as_page",
    "as_text",
    "as_time",
    "call",
    "cancel",
    "download",
    "either",
    "failure",
    "failures",
    "job_state",
    "status_error",
]
