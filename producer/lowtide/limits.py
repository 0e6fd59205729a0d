"""Limits of the options and requests of a batch. A number is the most that is allowed."""

from __future__ import annotations

MAX_ATTEMPTS = 100
"""Most provider jobs that may carry one request."""
MAX_PRIORITY = 100
"""Highest priority of a batch; the lowest is its negative."""
MAX_DEADLINE_SECONDS = 31_622_400
"""Longest time from a submit to the deadline of its batch, in seconds: 366 days."""
MAX_MODEL_CHARS = 256
MAX_HANDLER_CHARS = 2048
"""Characters of an `on_result`, `on_finished` or `on_progress`."""
MAX_IDEMPOTENCY_KEY_CHARS = 1024
MAX_TENANT_CHARS = 1024
MAX_REUSE_SECONDS = 31_622_400
"""Longest time for which the answer to a single can be reused, in seconds: 366 days."""
MAX_BLOCK_SECONDS = 3600
"""Longest wait of `add` for room, in seconds. Large singles have their files by then, which nothing refers to yet: the
sweep removes such files after a day."""
MAX_LABELS = 64
MAX_LABEL_NAME_CHARS = 128
MAX_LABEL_VALUE_CHARS = 1024
MAX_OUTCOMES = 256
MAX_OUTCOME_CHARS = 128
"""Characters of a reason or code in `outcomes`."""
MAX_URI_CHARS = 2048
MAX_COLUMN_CHARS = 300
"""Characters of a column's name in BigQuery, and of a `key_field`."""
MAX_KEY_BYTES = 16 << 10
"""Bytes of a request's key, in UTF-8."""
MAX_METADATA_BYTES = 64 << 10
"""Bytes of all names and values of a request's metadata together, in UTF-8."""
MAX_INBOX_OPTIONS_BYTES = 1 << 20
"""Bytes of a `batch.json` in the inbox."""
