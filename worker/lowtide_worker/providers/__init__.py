"""Providers of batch jobs, behind one protocol that knows nothing of Google.

`gemini` and `vertex` are imported only where they are used, as each loads its own SDK.
"""

from __future__ import annotations

from lowtide_worker.providers.job_lookup import JobLookup
from lowtide_worker.providers.lines import without_line_ends
from lowtide_worker.providers.pages import every
from lowtide_worker.providers.protocol import (
    NO_RESPONSE,
    Denied,
    IncompleteOutput,
    Missing,
    NewJob,
    Output,
    OutputRow,
    Part,
    Provider,
    ProviderError,
    ProviderJob,
    Refused,
    Sink,
    Throttled,
    Unavailable,
    Uploaded,
    Version,
    Webhook,
    Writer,
)
from lowtide_worker.providers.upload_slice import SpoolSlice

__all__ = [
    "NO_RESPONSE",
    "Denied",
    "IncompleteOutput",
    "JobLookup",
    "Missing",
    "NewJob",
    "Output",
    "OutputRow",
    "Part",
    "Provider",
    "ProviderError",
    "ProviderJob",
    "Refused",
    "Sink",
    "SpoolSlice",
    "Throttled",
    "Unavailable",
    "Uploaded",
    "Version",
    "Webhook",
    "Writer",
    "every",
    "without_line_ends",
]
