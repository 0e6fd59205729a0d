"""Settings of workers: the producers' and more, read from `LOWTIDE_*`, the SDK's own names and `.env`."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr

from lowtide import Settings


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
    provider_timeout_seconds: float = Field(60.0, gt=0, description="Longest wait for one answer of the provider.")
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
    output_grace_seconds: float = Field(
        900.0, ge=0, description="How long a succeeded job may come without its output before it is retried."
    )
    clock_tick_seconds: float = Field(1.0, gt=0, description="How often each worker looks at the clock.")
    lease_seconds: float = Field(
        60.0,
        ge=1,
        description="A worker that is silent for so long is taken for dead; its work goes on elsewhere.",
    )
    queue_window: int = Field(
        256, ge=1, description="Most messages waiting in one queue; what else is due waits in the store."
    )
    segment_bytes: int = Field(1 << 20, ge=1, description="Size of a segment of output, in bytes.")
    segment_rows: int = Field(1000, ge=1, le=10_000, description="Most rows in a segment.")
    brokers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Brokers that handlers may name, as JSON: {"shop-broker": "amqp://user:pw@host//"}. '
        "A fragment names the queue: amqp://host//#orders.",
    )
    handler_queue: str = Field("celery", description="Queue of handlers on Lowtide's own broker.")
    max_delivery_attempts: int = Field(
        8, ge=1, description="Tries to hand a segment to its handler before it is parked."
    )
    delete_at_provider: bool = Field(
        True, description="Delete provider job and uploaded file once the results are stored."
    )
    retention_seconds: float = Field(
        604_800.0, gt=0, description="A finished batch and its results are deleted after this long."
    )
    visibility_timeout_seconds: int = Field(
        900, ge=60, description="When the broker gives back a message whose worker vanished."
    )
