"""Settings of workers: the producers' and more, read from `LOWTIDE_*`, the SDK's own names and `.env`."""

from __future__ import annotations

import base64
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from lowtide import Settings
from lowtide.addresses import check_broker_url, parse_endpoint, parse_objects, parse_table

_MIN_SECRET_BYTES = 24
"""What Standard Webhooks asks for."""


_NO_LONGER_THAN = (
    ("poll_first_seconds", "poll_max_seconds"),
    ("retry_first_seconds", "retry_max_seconds"),
    ("quota_first_seconds", "quota_max_seconds"),
    ("delivery_retry_first_seconds", "delivery_retry_max_seconds"),
    # Else a worker's work would come again faster than anybody looks for it.
    ("clock_tick_seconds", "lease_seconds"),
    # Else a call that takes its time would be taken for a stage that hangs.
    ("lease_seconds", "stage_limit_seconds"),
    ("provider_timeout_seconds", "stage_limit_seconds"),
    ("webhook_timeout_seconds", "stage_limit_seconds"),
)
"""Settings of which the first may not be more than the second."""


def _told(settings: WorkerSettings, name: str) -> str:
    return f"LOWTIDE_{name.upper()}={getattr(settings, name):g}"


class WorkerSettings(Settings):
    """What a worker needs to know beside what producers know."""

    google_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        description="API key of the Gemini Developer API; GOOGLE_API_KEY wins where both are set.",
    )
    google_gemini_base_url: str | None = Field(
        None,
        validation_alias="GOOGLE_GEMINI_BASE_URL",
        description="Another endpoint than Google's, such as the emulator's.",
    )
    google_vertex_base_url: str | None = Field(
        None,
        validation_alias="GOOGLE_VERTEX_BASE_URL",
        description="Another endpoint of Vertex AI than Google's, such as the emulator's.",
    )
    vertex_storage: str | None = Field(
        None, description="Where workers keep jobs' files on Vertex AI: gs://bucket/folder, theirs alone."
    )
    vertex_dataset: str | None = Field(
        None, description="Where jobs that read a table write theirs: bq://project.dataset, for tables lowtide_*."
    )
    provider_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time for one call of the provider as a whole; for one step of a file's transfer.",
    )
    provider_slowest_bytes_per_second: float = Field(
        50_000.0,
        gt=0,
        description="A call that carries much, such as an inline job, has a second more for so many bytes.",
    )
    poll_first_seconds: float = Field(30.0, gt=0, description="First look at a new job, in seconds.")
    poll_max_seconds: float = Field(600.0, gt=0, description="Longest pause between two looks.")
    poll_factor: float = Field(1.5, ge=1, description="Each pause is this much longer than the last.")
    retry_first_seconds: float = Field(
        5.0, gt=0, description="First pause after the provider, Redis or a handler failed."
    )
    retry_max_seconds: float = Field(600.0, gt=0, description="Longest such pause.")
    quota_first_seconds: float = Field(
        60.0, gt=0, description="First pause after the provider said that a quota is used up (429)."
    )
    quota_max_seconds: float = Field(3600.0, gt=0, description="Longest such pause.")
    create_settle_seconds: float = Field(
        60.0, gt=0, description="After a create with unknown outcome: wait this long, then list and decide."
    )
    max_active_jobs: int = Field(
        100, ge=1, description="Most live jobs at the provider at once; the others wait by priority, then age."
    )
    job_deadline_seconds: float = Field(
        169_200.0, gt=0, description="A job older than this is cancelled, harvested, and its rest run anew."
    )
    batch_deadline_seconds: float = Field(
        1_209_600.0, gt=0, description="No new jobs are made for a batch older than this; the rest expires."
    )
    max_job_losses: int = Field(
        3, ge=0, description="Jobs that may expire, fail or get lost as a whole without costing a request an attempt."
    )
    output_grace_seconds: float = Field(
        900.0,
        ge=0,
        description="How long a succeeded job may come without its output, or a new batch without its files, before "
        "the job is retried, or the batch has failed.",
    )
    missing_job_seconds: float = Field(
        21_600.0,
        gt=0,
        description="How long a job that the provider does not know is waited for while it knows none of our jobs: "
        "the key may be another project's.",
    )
    clock_tick_seconds: float = Field(1.0, gt=0, description="How often each worker looks at the clock.")
    lease_seconds: float = Field(
        60.0,
        ge=1,
        description="A worker that is silent for so long is taken for dead; its work goes on elsewhere.",
    )
    stage_limit_seconds: float = Field(
        21_600.0, gt=0, description="A stage that takes longer is taken for hung: its lease is no longer renewed."
    )
    queue_window: int = Field(
        256, ge=1, description="Most messages waiting in one queue; what else is due waits in the store."
    )
    segment_bytes: int = Field(4 << 20, ge=1, description="Size of a segment of output, in bytes.")
    segment_rows: int = Field(4000, ge=1, le=10_000, description="Most rows in a segment.")
    brokers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Brokers that handlers may name, as JSON: {"shop-broker": "amqp://user:pw@host//"}. '
        "A fragment names the queue: amqp://host//#orders.",
    )
    handler_window: int = Field(
        1000,
        ge=1,
        description="Most segments that one Celery handler may have in hand; others wait in the store.",
    )
    handler_patience_seconds: float = Field(
        3600.0,
        ge=0,
        description="A segment that a Celery handler neither took nor gave back by then comes again, each time after "
        "twice as long, at most a day; 0 counts it as delivered when its broker has it.",
    )
    max_delivery_attempts: int = Field(
        8, ge=1, description="Tries to hand a segment to its handler before it is parked."
    )
    delete_at_provider: bool = Field(
        True, description="Delete provider job and uploaded file once the results are stored."
    )
    retention_seconds: float = Field(
        604_800.0, gt=0, description="A finished batch and its results are deleted after this long."
    )
    undelivered_retention_seconds: float = Field(
        2_592_000.0,
        gt=0,
        description="A finished batch with results that no handler took is kept for so long, whatever its retention.",
    )
    sweep_seconds: float = Field(
        300.0, gt=0, description="How often the store, the spool and the provider are searched for left-overs."
    )
    orphan_seconds: float = Field(
        86_400.0, gt=0, description="Files of submits that never came to their end are deleted after this long."
    )
    visibility_timeout_seconds: int = Field(
        900, ge=60, description="When the broker gives back a message whose worker vanished."
    )
    webhook_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Webhooks that handlers may name and what signs them, as JSON: {"https://shop.example/hooks/": '
        '"whsec_..."}. A URL that ends in / allows all that lies under it; the longest that fits gives the secret.',
    )
    webhook_timeout_seconds: float = Field(
        10.0, gt=0, description="Longest time for one webhook request as a whole, in seconds."
    )
    webhook_allow_private: bool = Field(
        False, description="Let webhooks reach private, loopback and link-local addresses, such as your own network's."
    )
    webhook_allow_http: bool = Field(
        False, description="Let webhooks go to http:// URLs, where anyone on the way can read the results."
    )
    stream_max_length: int = Field(
        100_000, ge=1, description="About how many entries the stream of a handler keeps; the oldest go first."
    )

    def call_seconds(self, size: int) -> float:
        """How long a call of the provider that carries `size` bytes may take as a whole, in seconds."""
        return self.provider_timeout_seconds + size / self.provider_slowest_bytes_per_second

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for shorter, longer in _NO_LONGER_THAN:
            if getattr(self, shorter) > getattr(self, longer):
                raise ValueError(f"{_told(self, shorter)} is more than {_told(self, longer)}")
        return self

    @field_validator("google_api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        bare = "" if key is None else key.get_secret_value().strip()
        if not (bare.isascii() and bare.isprintable()) or " " in bare:
            raise ValueError("it has characters that no key has; is it one line, and nothing but the key?")
        return SecretStr(bare) if bare else None

    @field_validator("vertex_storage")
    @classmethod
    def _storage_is_a_place(cls, uri: str | None) -> str | None:
        return None if uri is None else str(parse_objects(uri)).rstrip("/")

    @field_validator("vertex_dataset")
    @classmethod
    def _dataset_is_a_place(cls, uri: str | None) -> str | None:
        if uri is not None and parse_table(uri).table:
            raise ValueError("name a dataset, without a table: bq://project.dataset")
        return uri

    @field_validator("brokers")
    @classmethod
    def _brokers_are_usable(cls, brokers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, url in brokers.items():
            try:
                check_broker_url(url.get_secret_value())
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
            if not _signs(secret.get_secret_value()):
                raise ValueError(f"the secret of {endpoint} is not whsec_ and at least 24 bytes in base64")
        return secrets


def _signs(secret: str) -> bool:
    encoded = secret.removeprefix("whsec_")
    try:
        # Padding may be left off, as the reference libraries allow.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return False
    return secret.startswith("whsec_") and len(key) >= _MIN_SECRET_BYTES
