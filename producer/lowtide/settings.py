"""Settings that producers and workers share, read from `LOWTIDE_*` variables and `.env`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from lowtide.states import Mode


class Settings(BaseSettings):
    """What a producer needs to know. `BatchQueue()` reads it from the environment by itself."""

    model_config = SettingsConfigDict(env_prefix="LOWTIDE_", env_file=".env", extra="ignore", frozen=True)

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis of the store, the clock and the broker. It must not evict keys.",
    )
    redis_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one answer of Redis, in seconds.")
    spool_url: str = Field(
        str(Path.home() / ".lowtide" / "spool"),
        description="Folder or object store URL that producers and workers share (fsspec).",
    )
    provider: str = Field("gemini", description="Provider of new batches: gemini.")
    mode: Mode = Field(
        Mode.FILE,
        description="How requests travel: file (uploaded JSONL) or inline (small batches).",
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Provider jobs that may carry one request before it is failed."
    )
    max_requests_per_job: int = Field(200_000, ge=1, description="Most requests in one provider job.")
    max_bytes_per_job: int = Field(
        2_000_000_000,
        ge=1,
        description="Most bytes in one job's input file (the provider allows 2 GB).",
    )
    max_inline_bytes_per_job: int = Field(
        19_000_000,
        ge=1,
        description="Most bytes in one inline job (the provider allows under 20 MB).",
    )

    def max_job_bytes(self, mode: Mode) -> int:
        """The byte limit of one job in this mode."""
        if mode is Mode.INLINE:
            return min(self.max_inline_bytes_per_job, self.max_bytes_per_job)
        return self.max_bytes_per_job


def without_password(url: str) -> str:
    """The URL with its password replaced, fit for messages and logs."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
