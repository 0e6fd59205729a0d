"""The search for misspelt settings in the environment and in `.env`."""

from __future__ import annotations

import difflib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

from lowtide.secret_files import DIRECTORY, env_file_values, names_in_directory
from lowtide.settings import Settings
from lowtide.wrong_values import FILE_SUFFIX, PREFIX

OF_WORKERS = frozenset(
    [
        "batch_deadline_seconds",
        "brokers",
        "clock_tick_seconds",
        "create_settle_seconds",
        "event_format",
        "delete_at_provider",
        "handler_patience_seconds",
        "handler_window",
        "job_deadline_seconds",
        "health_host",
        "health_port",
        "lease_seconds",
        "log_format",
        "max_active_jobs",
        "max_continuations",
        "max_delivery_attempts",
        "max_enqueued_tokens",
        "max_job_losses",
        "missing_job_seconds",
        "orphan_seconds",
        "output_grace_seconds",
        "poll_factor",
        "poll_first_seconds",
        "poll_max_seconds",
        "progress_seconds",
        "poll_with_webhook_seconds",
        "provider_slowest_bytes_per_second",
        "provider_timeout_seconds",
        "queue_window",
        "quota_first_seconds",
        "quota_max_seconds",
        "retention_seconds",
        "retry_first_seconds",
        "retry_max_seconds",
        "segment_bytes",
        "segment_rows",
        "stage_limit_seconds",
        "stream_max_length",
        "sweep_seconds",
        "undelivered_retention_seconds",
        "vertex_dataset",
        "vertex_storage",
        "visibility_timeout_seconds",
        "webhook_allow_http",
        "webhook_allow_private",
        "webhook_secrets",
        "webhook_timeout_seconds",
    ]
)
"""The settings that only workers have. A producer knows their names, to distinguish them from misspelt ones."""
_OTHERS = ("flower_basic_auth", "redis_server", "crash_at")
_EMULATORS = f"{PREFIX}EMULATOR_"
_SIMILARITY = 0.8


def warn_of_unknown_variables(say: Callable[[str], object]) -> None:
    """Calls `say` with a warning for each misspelt variable, but only once in each process."""
    unsaid = _unsaid()
    with suppress(IndexError):
        while True:
            say(unsaid.popleft())


@cache
def _unsaid() -> deque[str]:
    return deque(unknown_variables())


def unknown_variables() -> Iterator[str]:
    """Yields a warning for each variable with the prefix `LOWTIDE_` that nothing reads.

    Variables of the environment and of `.env` count, and the files in the directory of secrets. A similar name, if
    there is one, is suggested. The emulator checks its own variables.
    """
    plain = {f"{PREFIX}{name.upper()}" for name in (*Settings.model_fields, *OF_WORKERS, *_OTHERS)}
    known = plain | {f"{name}{FILE_SUFFIX}" for name in plain}
    in_file = env_file_values()
    directory = f"{PREFIX}{DIRECTORY.upper()}"
    secrets = names_in_directory(os.environ.get(directory) or in_file.get(directory))
    for name in sorted({*os.environ, *in_file, *secrets}):
        upper = name.upper()
        if upper.startswith(PREFIX) and upper not in known and not upper.startswith(_EMULATORS):
            near = difflib.get_close_matches(upper, known, n=1, cutoff=_SIMILARITY)
            yield f"{name} is not a setting and has no effect" + (f": did you mean {near[0]}?" if near else "")
