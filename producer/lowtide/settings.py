"""Settings that producers and workers share, read from `LOWTIDE_*` variables, from `.env` and from files of secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lowtide.addresses import (
    broker_config,
    check_http_url,
    check_location,
    check_place,
    parse_handler,
    parse_redis_url,
    parse_spool_root,
    with_verified_certificate,
    without_password,
)
from lowtide.backoff import Backoff
from lowtide.budgets import Period, parse_budgets
from lowtide.errors import InvalidBatch, InvalidSettings
from lowtide.hook_settings import HookSettings
from lowtide.limits import MAX_ATTEMPTS
from lowtide.redaction import know_secrets
from lowtide.secret_files import DIRECTORY, from_directory, from_named_files
from lowtide.states import Mode, ProviderName, UnknownFields, Verdict
from lowtide.wrong_values import ENV_FILE, PREFIX, explain

Value = TypeVar("Value")

_LARGEST_INTEGER = 10**15
"""Lua holds it exactly."""
_LARGEST_NUMBER = 1e9
"""Thirty years in seconds. Sockets and locks refuse much longer waits."""


def _texts(value: object) -> Iterator[str]:
    """The texts of a setting that may be shown: secrets are not among them."""
    match value:
        case str():
            yield value
        case list() | dict():
            yield from (text for text in value if isinstance(text, str))


_VISIBILITY_SECONDS = 900
"""Time after which the messages of a handler's worker that was killed come again."""


class Settings(HookSettings):
    """The settings of a producer. The fields' descriptions say what each does.

    `BatchQueue()` reads them from the environment. In code, pass the names in lower case:

        Settings(redis_url="redis://redis.internal:6379/0", spool_url="gs://bucket/spool")

    Raises `InvalidSettings` for a value that is not allowed.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an input may be a URL with a password
    )

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="URL of the Redis database that holds the store, the clock and the broker's queues: redis://, "
        "rediss:// (TLS) or sentinel://. This Redis must not evict keys.",
    )
    secrets_dir: str | None = Field(
        None,
        description="Directory with a file for each secret, named as its variable, such as LOWTIDE_REDIS_URL. A "
        "variable takes precedence over its file. LOWTIDE_REDIS_URL_FILE names the file of one variable, and so with "
        "every other one.",
    )
    redis_timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one reply from Redis, in seconds.")
    replicas_to_wait_for: int = Field(
        0,
        ge=0,
        description="Number of Redis replicas that must confirm a new batch, or the note that a job is being "
        "created, before Lowtide goes on. A higher number survives the loss of more servers and makes "
        "these writes slower.",
    )
    spool_url: str = Field(
        # Without a home directory the ~ stays, and opening the spool fails with a clear error.
        default_factory=lambda: os.path.expanduser("~/.lowtide/spool"),  # noqa: PTH111 - this one never raises
        description="Folder, or URL of an object store (gs://, s3://, az://), that producers and workers share.",
    )
    provider: ProviderName = Field(
        ProviderName.GEMINI,
        description="Provider of new batches: gemini (the Gemini Developer API) or vertex (Vertex AI).",
    )
    mode: Mode = Field(
        Mode.FILE,
        description="How requests are sent to the Gemini Developer API: file (an uploaded JSONL file) or inline "
        "(within the create call, for small batches).",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=MAX_ATTEMPTS,
        description="Highest number of provider jobs that may carry one request. After that many, a failure is final.",
    )
    outcomes: dict[str, Verdict] = Field(
        default_factory=dict,
        description='How to treat rows that fail with a reason or code, as JSON: {"MAX_TOKENS": "retry", "SAFETY": '
        '"fail", "13": "fail"}. Each is retry, fail or succeed, and overrules the row table.',
        examples=['{"MAX_TOKENS": "retry"}'],
    )
    unknown_fields: UnknownFields = Field(
        UnknownFields.WARN,
        description="How to treat fields and values of a request that the types of the SDK do not know: refuse, warn "
        "(and send them) or pass. Misspellings of known ones are refused unless it is pass.",
    )
    prices: str | None = Field(
        None,
        description="TOML file of prices. Its rows replace those of the models that they name in Lowtide's own table. "
        "Producers and workers need the same file. Each process reads it once.",
        examples=["/etc/lowtide/prices.toml"],
    )
    budgets: Annotated[dict[str, dict[Period, int]], NoDecode] = Field(
        default_factory=dict,
        description="Most that the work under a label may cost in a day and in a month (UTC), in US dollars, as "
        'JSON: {"team=catalog": {"day": 50, "month": 800}}. Work over a budget waits. Producers and workers need the '
        "same value.",
        examples=['{"team=catalog": {"day": 50, "month": 800}}'],
    )
    max_requests_per_job: int = Field(200_000, ge=1, description="Highest number of requests in one provider job.")
    max_bytes_per_job: int = Field(
        2_000_000_000,
        ge=1,
        description="Largest input file of one job, in bytes. The provider allows 2 GB.",
    )
    max_vertex_bytes_per_job: int = Field(
        1_000_000_000,
        ge=1,
        description="Largest input file of one job on Vertex AI, in bytes. Vertex AI allows 1 GB.",
    )
    max_inline_bytes_per_job: int = Field(
        19_000_000,
        ge=1,
        description="Largest inline job, in bytes. The provider allows less than 20 MB.",
    )

    share_jobs: bool = Field(
        False,
        description="Whether small batches of equal options share provider jobs. A batch may decide for itself.",
    )
    linger_seconds: float = Field(
        3.0,
        ge=0,
        description="How long a small batch, or a request that runs again, waits for others to share a provider job "
        "with, in seconds.",
    )
    linger_requests: int = Field(
        1000,
        ge=1,
        description="Number of requests that need not wait for more to share a provider job with. A batch of as many "
        "has jobs of its own.",
    )
    small_batch_bytes: int = Field(
        4096,
        ge=0,
        le=65_536,
        description="Most bytes of a batch's requests, compressed, that wait in Redis for others to share a provider "
        "job with. More wait in the spool, which takes longer to submit; with 0 all do.",
    )

    gather_seconds: float = Field(
        3.0, ge=0, description="How long a single waits for others to be sent in one batch, in seconds."
    )
    gather_requests: int = Field(
        10_000, ge=1, description="Number of singles that are made into a batch without waiting for more."
    )
    gather_bytes: int = Field(
        64_000_000, ge=1, description="Size of singles that are made into a batch without waiting for more, in bytes."
    )
    gather_tokens: int = Field(
        10_000_000,
        ge=1,
        description="Estimated input tokens of singles that are made into a batch without waiting for more.",
    )
    single_bytes: int = Field(
        65_536,
        ge=1,
        description="Largest single that waits in Redis, in bytes. A larger one waits in the spool.",
    )
    max_singles_waiting: int = Field(
        1_000_000, ge=1, description="Highest number of singles that wait to be gathered. Beyond it, add is refused."
    )
    key_seconds: float = Field(
        86_400.0, ge=1, description="Time for which the key of a single returns the same ticket, in seconds."
    )
    ticket_seconds: float = Field(
        604_800.0,
        gt=0,
        description="Time for which the results of singles are kept after their batch has finished, in seconds.",
    )

    google_cloud_project: str | None = Field(
        None,
        validation_alias="GOOGLE_CLOUD_PROJECT",
        description="Google Cloud project for Vertex AI, Cloud Storage and BigQuery.",
    )
    google_cloud_location: str = Field(
        "us-central1",
        validation_alias="GOOGLE_CLOUD_LOCATION",
        description="Location in which Vertex AI runs the jobs: a region, global, us or eu. Jobs in global can use no "
        "BigQuery tables.",
    )
    google_vertex_base_url: str | None = Field(
        None,
        validation_alias="GOOGLE_VERTEX_BASE_URL",
        description="URL of a Vertex AI endpoint other than Google's, such as the emulator's.",
    )
    vertex_credentials: str | None = Field(
        None,
        description="Path of a service account's key file, or anonymous for emulators. Unset: Application Default "
        "Credentials.",
    )
    vertex_locations: list[str] = Field(
        default_factory=list,
        description="Places in Google Cloud that batches may name as source or destination, as JSON: "
        '["gs://bucket/folder", "bq://project.dataset"]. No other source or destination is opened.',
        examples=['["gs://bucket/folder", "bq://project.dataset"]'],
    )

    on_finished: str | None = Field(
        None,
        description="Handler that is notified of the end of each submitted batch that names none: a Celery task, an "
        "https:// URL or stream://NAME. Batches of single requests have no such event.",
        examples=["stream://finished"],
    )
    delivery_retry_first_seconds: float = Field(
        5.0,
        gt=0,
        description="Pause before results are delivered again after a handler's first failure, in seconds. Each "
        "further pause is twice as long.",
    )
    delivery_retry_max_seconds: float = Field(
        600.0, gt=0, description="Longest pause before results are delivered again, in seconds."
    )
    handler_queue: str | None = Field(
        None,
        description="Queue for Celery handlers that were named without a queue and whose workers have not announced "
        "one. Unset: their results wait for such a worker.",
    )

    if not TYPE_CHECKING:  # type checkers keep the signature with all fields

        def __init__(self, **values: Any) -> None:
            """Reads the settings. `values` take precedence over the environment, and the environment over `.env`."""
            try:
                super().__init__(**values)
            except (ValidationError, SettingsError, UnicodeDecodeError) as error:
                raise InvalidSettings(explain(error, type(self).model_fields)) from None
            except RecursionError:
                raise InvalidSettings(
                    "a setting in JSON, such as LOWTIDE_OUTCOMES, is nested too deeply: write one level"
                ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds the settings in files. A file counts as much as the variable that names it."""
        environment = cast("EnvSettingsSource", env_settings).env_vars
        env_file = cast("EnvSettingsSource", dotenv_settings).env_vars
        arguments = cast("InitSettingsSource", init_settings).init_kwargs
        name = f"{PREFIX}{DIRECTORY}".lower()
        return (
            init_settings,
            env_settings,
            from_named_files(settings_cls, environment),
            dotenv_settings,
            from_named_files(settings_cls, env_file),
            from_directory(settings_cls, arguments.get(DIRECTORY) or environment.get(name) or env_file.get(name)),
            file_secret_settings,
        )

    @field_validator("*")
    @classmethod
    def _values_are_plain(cls, value: Value) -> Value:
        if isinstance(value, (int, float)):
            most = _LARGEST_NUMBER if isinstance(value, float) else _LARGEST_INTEGER
            if value > most:
                raise ValueError(f"this is too large; write a number up to {most:,.0f}")
        # Control characters are what a paste leaves behind, and would reach paths, URLs and terminals.
        elif not all(text.strip() and text.isprintable() for text in _texts(value)):
            raise ValueError("this is blank or has control characters; write it on one line, or unset it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_can_be_used(cls, url: SecretStr) -> SecretStr:
        parse_redis_url(url.get_secret_value())
        return SecretStr(with_verified_certificate(url.get_secret_value()))

    @field_validator("spool_url")
    @classmethod
    def _spool_url_can_be_used(cls, url: str) -> str:
        parse_spool_root(url)
        return url

    @field_validator("on_finished")
    @classmethod
    def _on_finished_is_a_handler(cls, handler: str | None) -> str | None:
        if handler is not None:
            try:
                parse_handler(handler, "on_finished")
            except InvalidBatch:
                raise ValueError(
                    "this names no handler; write a Celery task such as shop.done, an https:// URL or stream://NAME"
                ) from None
        return handler

    @field_validator("google_vertex_base_url", "google_gemini_base_url", check_fields=False)
    @classmethod
    def _endpoint_is_a_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_http_url(url)
        return url

    @field_validator("budgets", mode="before")
    @classmethod
    def _budgets_are_amounts_by_label(cls, given: object) -> object:
        return parse_budgets(given)

    @field_validator("vertex_locations")
    @classmethod
    def _locations_are_places(cls, places: list[str]) -> list[str]:
        for place in places:
            check_place(place)
        return places

    @field_validator("google_cloud_location")
    @classmethod
    def _location_exists(cls, name: str) -> str:
        check_location(name)
        return name

    def model_post_init(self, context: object, /) -> None:
        """Has every text that leaves this process hide the secrets of these settings."""
        del context
        know_secrets(vars(self).values())

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value

    def broker_config(self) -> dict[str, Any]:
        """Returns the settings by which a Celery app has Lowtide's Redis as its broker: `app.conf.update(...)`.

        They contain the password, and a visibility timeout of 900 s: that of Celery, an hour, is the time until the
        messages of a worker that was killed come again. A message that a worker has prefetched counts towards it too,
        so no more are prefetched than are worked on.
        """
        config = broker_config(self.redis_url.get_secret_value())
        options = config.get("broker_transport_options", {})
        options = {"visibility_timeout": _VISIBILITY_SECONDS, **options}
        return config | {"broker_transport_options": options, "worker_prefetch_multiplier": 1}

    @property
    def delivery_backoff(self) -> Backoff:
        """The pauses between failed deliveries of one segment."""
        return Backoff(first=self.delivery_retry_first_seconds, cap=self.delivery_retry_max_seconds)

    def max_job_bytes(self, mode: Mode, provider: ProviderName = ProviderName.GEMINI) -> int:
        """Returns the largest size of one job in this mode at this provider, in bytes."""
        if provider is ProviderName.VERTEX:
            return min(self.max_vertex_bytes_per_job, self.max_bytes_per_job)
        if mode is Mode.INLINE:
            return min(self.max_inline_bytes_per_job, self.max_bytes_per_job)
        return self.max_bytes_per_job
