"""Settings that producers and workers share, read from `LOWTIDE_*` variables and `.env`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from lowtide.addresses import check_redis_url, check_spool_url, without_password
from lowtide.backoff import Backoff
from lowtide.limits import MAX_ATTEMPTS
from lowtide.states import Mode, ProviderName, Verdict


class Settings(BaseSettings):
    """What a producer needs to know. `BatchQueue()` reads it from the environment by itself."""

    model_config = SettingsConfigDict(
        env_prefix="LOWTIDE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an input may be a URL with a password
    )

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis of the store, the clock and the broker. It must not evict keys.",
    )
    redis_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one answer of Redis, in seconds.")
    replicas_to_wait_for: int = Field(
        0, ge=0, description="Replicas of Redis that must have a batch, or a note of a create, before it counts."
    )
    spool_url: str = Field(
        # Without a home directory it stays as it is, and whoever needs the spool is told.
        default_factory=lambda: os.path.expanduser("~/.lowtide/spool"),  # noqa: PTH111 - this one never raises
        description="Folder or object store URL that producers and workers share (fsspec).",
    )
    provider: ProviderName = Field(
        ProviderName.GEMINI,
        description="Provider of new batches: gemini (the Developer API) or vertex (Vertex AI).",
    )
    mode: Mode = Field(
        Mode.FILE,
        description="How requests travel: file (uploaded JSONL) or inline (small batches).",
    )
    max_attempts: int = Field(
        3, ge=1, le=MAX_ATTEMPTS, description="Provider jobs that may carry one request before it is failed."
    )
    outcomes: dict[str, Verdict] = Field(
        default_factory=dict,
        description="What rows of these reasons or codes come to, as JSON, over the table's word: "
        '{"MAX_TOKENS": "retry", "SAFETY": "fail", "13": "fail"}; retry, fail or succeed.',
    )
    max_requests_per_job: int = Field(200_000, ge=1, description="Most requests in one provider job.")
    max_bytes_per_job: int = Field(
        2_000_000_000,
        ge=1,
        description="Most bytes in one job's input file (the provider allows 2 GB).",
    )
    max_vertex_bytes_per_job: int = Field(
        1_000_000_000,
        ge=1,
        description="Most bytes in one job's input file on Vertex AI (it allows 1 GB).",
    )
    max_inline_bytes_per_job: int = Field(
        19_000_000,
        ge=1,
        description="Most bytes in one inline job (the provider allows under 20 MB).",
    )

    google_cloud_project: str | None = Field(
        None, validation_alias="GOOGLE_CLOUD_PROJECT", description="Project of Vertex AI, Cloud Storage and BigQuery."
    )
    google_cloud_location: str = Field(
        "us-central1", validation_alias="GOOGLE_CLOUD_LOCATION", description="Region of Vertex AI's jobs."
    )
    vertex_credentials: str | None = Field(
        None,
        description="File of a service account's key; anonymous for emulators; "
        "without it, Application Default Credentials are used.",
    )
    vertex_locations: list[str] = Field(
        default_factory=list,
        description="What batches may name as source or destination, as JSON: "
        '["gs://bucket/folder", "bq://project.dataset"]. Nothing else is opened.',
    )

    delivery_retry_first_seconds: float = Field(
        5.0, gt=0, description="First pause before results that a handler did not take come again."
    )
    delivery_retry_max_seconds: float = Field(600.0, gt=0, description="Longest such pause.")
    handler_queue: str | None = Field(
        None,
        description="Queue of Celery handlers that nobody has said where they listen, and that were named without one.",
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url_can_be_used(cls, url: SecretStr) -> SecretStr:
        check_redis_url(url.get_secret_value())
        return url

    @field_validator("spool_url")
    @classmethod
    def _spool_url_can_be_shown(cls, url: str) -> str:
        check_spool_url(url)
        return url

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value

    @property
    def delivery_backoff(self) -> Backoff:
        """The pauses between deliveries of one segment."""
        return Backoff(first=self.delivery_retry_first_seconds, cap=self.delivery_retry_max_seconds)

    def max_job_bytes(self, mode: Mode, provider: ProviderName = ProviderName.GEMINI) -> int:
        """The byte limit of one job in this mode."""
        if provider is ProviderName.VERTEX:
            return min(self.max_vertex_bytes_per_job, self.max_bytes_per_job)
        if mode is Mode.INLINE:
            return min(self.max_inline_bytes_per_job, self.max_bytes_per_job)
        return self.max_bytes_per_job


def explain(error: ValueError) -> str:
    """One line on what is wrong with which variables, from a validation or settings error; it repeats no value."""
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        return "; ".join(map(_told, problems))
    named = re.search(r'"(\w+)"', str(error))
    return f"{_variable((named[1],) if named else ())}: it is not the JSON that it must be (see docs/reference.md)"


def _told(problem: ErrorDetails) -> str:
    """A problem with the variable it is about; one about several names them itself."""
    message = problem["msg"].removeprefix("Value error, ")
    return f"{_variable(problem['loc'])}: {message}" if problem["loc"] else message


def _variable(location: tuple[int | str, ...]) -> str:
    """The environment variable of a setting: its alias, or its name under the prefix."""
    name = str(location[0]) if location else "settings"
    return name if name.isupper() else f"LOWTIDE_{name.upper()}"
