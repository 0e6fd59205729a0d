"""Settings of workers, on top of those of producers.

They are read from `LOWTIDE_*` variables, from the variables of Google's SDK, and from `.env`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urldefrag

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from lowtide import Settings
from lowtide.addresses import broker_config, check_broker_url, parse_endpoint, parse_objects, parse_table
from lowtide.hook_settings import MIN_SECRET_BYTES, signing_key
from lowtide.protocol import BatchRecord
from lowtide.quotas import limit_of, token_limits
from lowtide.states import Mode, ProviderName

_NO_LONGER_THAN = (
    ("poll_first_seconds", "poll_max_seconds"),
    ("retry_first_seconds", "retry_max_seconds"),
    ("quota_first_seconds", "quota_max_seconds"),
    ("delivery_retry_first_seconds", "delivery_retry_max_seconds"),
    # Else a lease would expire between two ticks.
    ("clock_tick_seconds", "lease_seconds"),
    # Else a slow call would count as a stage that hangs.
    ("lease_seconds", "stage_limit_seconds"),
    ("provider_timeout_seconds", "stage_limit_seconds"),
    ("webhook_timeout_seconds", "stage_limit_seconds"),
)
"""Pairs of settings: the first must not be more than the second."""


def _assignment(settings: WorkerSettings, name: str) -> str:
    return f"LOWTIDE_{name.upper()}={getattr(settings, name):g}"


class LogFormat(StrEnum):
    """The form of the workers' log: `LOWTIDE_LOG_FORMAT`."""

    TEXT = "text"
    JSON = "json"


class EventFormat(StrEnum):
    """The form of the batch events that webhooks get: `LOWTIDE_EVENT_FORMAT`."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class WorkerSettings(Settings):
    """The settings of a worker. The fields' descriptions say what each does."""

    google_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        description="API key for the Gemini Developer API. GOOGLE_API_KEY takes precedence if both are set.",
    )
    google_gemini_base_url: str | None = Field(
        None,
        validation_alias="GOOGLE_GEMINI_BASE_URL",
        description="URL of a Gemini endpoint other than Google's, such as the emulator's.",
    )
    vertex_storage: str | None = Field(
        None,
        description="Folder in Cloud Storage, gs://bucket/folder, where workers keep the files of jobs on Vertex AI. "
        "Nothing else may use this folder.",
    )
    vertex_dataset: str | None = Field(
        None,
        description="BigQuery dataset, bq://project.dataset, for the output tables (lowtide_*) of jobs that read a "
        "table.",
    )
    provider_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time for one call to the provider as a whole, in seconds. For uploads and downloads of "
        "files it bounds each step.",
    )
    provider_slowest_bytes_per_second: float = Field(
        50_000.0,
        gt=0,
        description="Slowest accepted transfer, in bytes per second. A call may take "
        "LOWTIDE_PROVIDER_TIMEOUT_SECONDS, and the time that its bytes take at this rate. A lower value "
        "gives slow networks more time.",
    )
    poll_first_seconds: float = Field(
        30.0, gt=0, description="Delay before a new job is polled for the first time, in seconds."
    )
    poll_max_seconds: float = Field(600.0, gt=0, description="Longest delay between two polls of a job, in seconds.")
    poll_with_webhook_seconds: float = Field(
        900.0,
        gt=0,
        description="Delay between two polls of a job that was created with a webhook, in seconds, as long as its "
        "events come (LOWTIDE_WEBHOOK_URL).",
    )
    poll_factor: float = Field(1.5, ge=1, description="Factor by which the delay grows with each poll of a job.")
    retry_first_seconds: float = Field(
        5.0,
        gt=0,
        description="Pause before work is retried after a first failure, such as one of the provider or of "
        "Redis, in seconds. Each further pause is twice as long.",
    )
    retry_max_seconds: float = Field(
        600.0, gt=0, description="Longest pause before failed work is retried, in seconds."
    )
    quota_first_seconds: float = Field(
        60.0,
        gt=0,
        description="Pause after the provider first reports that a quota is used up (HTTP 429), in seconds. Each "
        "further pause is twice as long.",
    )
    quota_max_seconds: float = Field(
        3600.0, gt=0, description="Longest pause after the provider reports that a quota is used up, in seconds."
    )
    create_settle_seconds: float = Field(
        60.0,
        gt=0,
        description="Wait after a create call with an unknown outcome, in seconds. Then the provider's list decides "
        "whether the job exists. A higher value tolerates a list that lags further behind.",
    )
    max_active_jobs: int = Field(
        100,
        ge=1,
        description=(
            "Highest number of live jobs at the provider. Others wait, by priority, tenants in turn, then age."
        ),
    )
    max_enqueued_tokens: Annotated[dict[str, int], NoDecode] = Field(
        default_factory=dict,
        description="Highest number of estimated input tokens of all live jobs of a model at the Developer API, by "
        'model, as JSON: {"gemini-3.5-flash": 3000000}; or the tier of your project, whose published limits are taken: '
        "tier-1, tier-2 or tier-3. Unset, and on Vertex AI: the limit is learned from refusals.",
        examples=["tier-1"],
    )
    job_deadline_seconds: float = Field(
        169_200.0,
        gt=0,
        description="Age at which a job is cancelled, in seconds. Its output so far is collected, and the other "
        "requests run again.",
    )
    batch_deadline_seconds: float = Field(
        1_209_600.0,
        gt=0,
        description="Age after which a batch without a deadline of its own gets no new jobs, in seconds. Its "
        "requests that are in no job expire; jobs that exist go on.",
    )
    max_job_losses: int = Field(
        3,
        ge=0,
        description="How often the job of a request may be lost as a whole (expired, failed or missing) and run "
        "again. A lost job does not count as an attempt.",
    )
    max_continuations: int = Field(
        10,
        ge=0,
        le=1000,
        description="How often a request runs again because its answer ended with CONTINUATION. A continuation is "
        "billed like any request and does not count as an attempt. 0: such an answer is a failure.",
    )
    output_grace_seconds: float = Field(
        900.0,
        ge=0,
        description="How long to wait for the output of a job that has succeeded, or for the files of a new batch, "
        "in seconds. After that the job is retried, or the batch has failed.",
    )
    missing_job_seconds: float = Field(
        21_600.0,
        gt=0,
        description="How long to wait for a job that the provider does not know, in seconds, as long as it knows "
        "none of Lowtide's jobs. The API key may belong to another project.",
    )
    clock_tick_seconds: float = Field(
        1.0,
        gt=0,
        description="Interval at which each worker checks for due work, in seconds. A lower value starts work sooner "
        "and asks Redis more often.",
    )
    lease_seconds: float = Field(
        60.0,
        ge=1,
        description="Time without a sign of life after which a worker counts as dead and its work goes to another "
        "worker, in seconds. A higher value tolerates longer freezes and delays the recovery from a "
        "crash.",
    )
    stage_limit_seconds: float = Field(
        21_600.0,
        gt=0,
        description="Longest time for one stage, in seconds. A stage that takes longer counts as hung, and its work "
        "goes to another worker.",
    )
    queue_window: int = Field(
        256, ge=1, description="Highest number of messages that wait in one queue. Other due work waits in the store."
    )
    segment_bytes: int = Field(
        4 << 20,
        ge=1,
        description="Size of a segment of output, in bytes. Larger segments mean fewer deliveries and need more "
        "memory.",
    )
    segment_rows: int = Field(4000, ge=1, le=10_000, description="Highest number of rows in a segment.")
    brokers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Brokers that handlers may name, as JSON: {"shop-broker": "amqp://user:pw@host//"}. A fragment '
        "of the URL names the queue: amqp://host//#orders.",
        examples=['{"shop-broker": "amqp://host//"}'],
    )
    handler_window: int = Field(
        1000,
        ge=1,
        description="Highest number of segments that one Celery handler may have without an answer. Further segments "
        "wait in the store.",
    )
    handler_patience_seconds: float = Field(
        3600.0,
        ge=0,
        description="How long to wait for a Celery handler's answer before a segment is sent again, in seconds. Each "
        "further wait is twice as long, at most a day. With 0, a segment counts as delivered as soon as "
        "the broker has it.",
    )
    max_delivery_attempts: int = Field(
        8, ge=1, description="How often a segment is handed to a failing handler before it is parked."
    )
    delete_at_provider: bool = Field(
        True, description="Whether to delete the provider's job and the uploaded file after the results are stored."
    )
    retention_seconds: float = Field(
        604_800.0, gt=0, description="Time after which a finished batch and its results are deleted, in seconds."
    )
    undelivered_retention_seconds: float = Field(
        2_592_000.0,
        gt=0,
        description="Time after which a finished batch is deleted even if its handler has not taken all results, in "
        "seconds. Until then such a batch is kept beyond LOWTIDE_RETENTION_SECONDS.",
    )
    sweep_seconds: float = Field(
        300.0,
        gt=0,
        description="Interval at which the store, the spool and the provider are searched for left-overs, in seconds.",
    )
    orphan_seconds: float = Field(
        86_400.0,
        gt=0,
        description="Age at which files of submits that never finished, and drafts of killed processes, are deleted, "
        "in seconds.",
    )
    visibility_timeout_seconds: int = Field(
        900,
        ge=60,
        description="Time after which the broker gives back a message whose worker has vanished, in seconds.",
    )
    webhook_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Webhook URLs that handlers may name, each with the secret that signs its requests, as JSON: "
        '{"https://shop.example/hooks/": "whsec_..."}. A URL that ends in / allows everything below it. '
        "The longest URL that matches gives the secret.",
        examples=['{"https://shop.example/hooks/": "whsec_..."}'],
    )
    webhook_timeout_seconds: float = Field(
        10.0, gt=0, description="Longest time for one webhook request as a whole, in seconds."
    )
    webhook_allow_private: bool = Field(
        False,
        description="Whether webhooks may go to private, loopback and link-local addresses, such as those of your "
        "own network.",
    )
    webhook_allow_http: bool = Field(
        False, description="Whether webhooks may go to http:// URLs, where anyone on the way can read the results."
    )
    health_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port on which each worker serves the probes /livez and /readyz. 0: none. Workers on one host need "
        "different ports.",
    )
    health_host: str = Field("127.0.0.1", description="Address on which a worker serves its probes.")
    log_format: LogFormat = Field(
        LogFormat.TEXT, description="Form of the workers' log: text, or json with one object a line."
    )
    event_format: EventFormat = Field(
        EventFormat.STANDARD,
        description="Form of the batch events that webhooks get: standard (that of Standard Webhooks) or cloudevents "
        "(CloudEvents 1.0, structured mode). Both are signed in the same way.",
    )
    progress_seconds: float = Field(
        60.0, gt=0, description="Shortest time between two events of a batch's progress, in seconds."
    )
    stream_max_length: int = Field(
        100_000,
        ge=1,
        description="Approximate number of entries that the stream of a handler keeps. The oldest are removed first.",
    )

    def call_seconds(self, size: int) -> float:
        """Returns the longest time for a call to the provider that carries `size` bytes, in seconds."""
        return self.provider_timeout_seconds + size / self.provider_slowest_bytes_per_second

    def longest_create_seconds(self, mode: Mode) -> float:
        """Returns the longest time for the call that creates a job, in seconds. An inline one carries its requests."""
        return self.call_seconds(3 * self.max_inline_bytes_per_job if mode is Mode.INLINE else 0)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for shorter, longer in _NO_LONGER_THAN:
            if getattr(self, shorter) > getattr(self, longer):
                raise ValueError(
                    f"{_assignment(self, shorter)} is more than {_assignment(self, longer)}: lower the first or raise "
                    "the second"
                )
        return self

    def deadline_of(self, batch: BatchRecord) -> float:
        """Returns the time after which a batch gets no more jobs, in Unix seconds."""
        return batch.created + self.batch_deadline_seconds if batch.deadline is None else batch.deadline

    def max_tokens(self, provider: ProviderName, model: str) -> int | None:
        """Returns the highest number of enqueued input tokens of a provider's model; None where no limit is known.

        Vertex AI has no such limit: its jobs share a pool.
        """
        return limit_of(self.max_enqueued_tokens, model) if provider is ProviderName.GEMINI else None

    @field_validator("max_enqueued_tokens", mode="before")
    @classmethod
    def _limits_are_a_tier_or_by_model(cls, given: object) -> dict[str, int]:
        return token_limits(given)

    @field_validator("google_api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        bare = "" if key is None else key.get_secret_value().strip()
        if not (bare.isascii() and bare.isprintable()) or " " in bare:
            raise ValueError("it has characters that no key has; set it to the key alone, on one line")
        return SecretStr(bare) if bare else None

    @field_validator("vertex_storage")
    @classmethod
    def _storage_is_a_place(cls, uri: str | None) -> str | None:
        if uri is None:
            return None
        try:
            return str(parse_objects(uri)).rstrip("/")
        except ValueError:
            raise ValueError("this is not a folder in Cloud Storage; write gs://bucket/folder") from None

    @field_validator("vertex_dataset")
    @classmethod
    def _dataset_is_a_place(cls, uri: str | None) -> str | None:
        try:
            if uri is None or not parse_table(uri).table:
                return uri
        except ValueError:
            raise ValueError("this is not a dataset of BigQuery; write bq://project.dataset") from None
        raise ValueError("name a dataset without a table, as in bq://project.dataset")

    @field_validator("brokers")
    @classmethod
    def _brokers_are_usable(cls, brokers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, url in brokers.items():
            try:
                check_broker_url(url.get_secret_value())
                _check_with_celery(url.get_secret_value())
            except ValueError as error:
                raise ValueError(f"the URL of {name!r:.80} cannot be used: {error}") from None
        return brokers

    @field_validator("webhook_secrets")
    @classmethod
    def _webhooks_are_usable(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for url, secret in secrets.items():
            try:
                endpoint = parse_endpoint(url)
            except ValueError as error:
                raise ValueError(f"one of the URLs cannot be used: {error}") from None
            try:
                signing_key(secret.get_secret_value())
            except ValueError:
                raise ValueError(
                    f"the secret of {endpoint} is not whsec_ followed by at least {MIN_SECRET_BYTES} bytes in base64"
                ) from None
        return secrets


def _check_with_celery(url: str) -> None:
    """Raises `ValueError` for a URL that Celery cannot read. It is not connected to."""
    from kombu.connection import Connection  # only where there are brokers: it takes as long as all settings

    config = broker_config(urldefrag(url)[0])
    try:
        Connection(config["broker_url"])
    except Exception:  # noqa: BLE001 - kombu raises what an option of the URL happens to break
        raise ValueError("Celery cannot read it; write one such as amqp://host//") from None
