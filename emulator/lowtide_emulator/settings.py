"""Settings of an emulator.

Every limit has the value that the services document, so that a test that sets nothing runs into the real limits.
Every duration is in seconds of the emulated clock. The command `lowtide-emulator serve` makes its options, their help
and their environment variables from these fields; see `options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

HOUR = 3600.0
MIB = 1024**2
GIB = 1024**3


class Setting:
    """The description of a setting.

    description: its meaning and its unit, also the help of the option.
    option: the name of the option where it is not the field's.
    served: the default of the command where it is not the field's.
    checks: further arguments of `typer.Option`: limits of the value, and how the default is shown.
    """

    def __init__(self, description: str, *, option: str = "", served: float | None = None, **checks: Any) -> None:
        self.description = description
        self.option = option
        self.served = served
        self.checks = checks


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an emulator; all have defaults."""

    host: Annotated[str, Setting("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Setting("Port to listen on; 0 chooses a free one.", served=8080, min=0, max=65535)] = 0
    data_dir: Annotated[
        Path | None,
        Setting(
            "Folder for uploads and results.",
            file_okay=False,
            show_default="a temporary folder, removed at the end",
        ),
    ] = None
    api_keys: Annotated[
        frozenset[str],
        Setting("API key to accept. Can be repeated.", option="api_key", show_default="any key, or none"),
    ] = frozenset()
    answer_threads: Annotated[int, Setting("Number of jobs that are answered at the same time.", min=1)] = 2

    pending_seconds: Annotated[float, Setting("Time that a job is PENDING, in seconds.", served=5.0, min=0)] = 0.0
    running_seconds: Annotated[
        float,
        Setting(
            "Time that a job is RUNNING, in seconds. It is longer if the results take longer.",
            served=10.0,
            min=0,
        ),
    ] = 0.0
    expire_seconds: Annotated[
        float, Setting("Age at which a job that is not finished becomes EXPIRED, in seconds.", min=0)
    ] = 48 * HOUR
    file_seconds: Annotated[
        float, Setting("Life of an uploaded file, and of a results file after its job, in seconds.", min=0)
    ] = 48 * HOUR
    file_processing_seconds: Annotated[
        float, Setting("Time that an uploaded file is PROCESSING, in seconds.", min=0)
    ] = 0.0
    refuse_delete_of_live: Annotated[bool, Setting("Refuse to delete a job that is not finished.")] = False
    ranges: Annotated[
        bool, Setting("Answer a download with a Range header by that range; or always by the whole file.")
    ] = True

    models: Annotated[
        frozenset[str],
        Setting("Model to accept besides gemini-* and text-embedding*. Can be repeated.", option="model"),
    ] = frozenset()
    max_active_jobs: Annotated[
        int, Setting("Most unfinished jobs at the same time. One more is refused with status 429.", min=1)
    ] = 100
    max_enqueued_tokens: Annotated[
        str | None,
        Setting(
            "Most input tokens of a model in unfinished jobs; a job beyond it is refused with status 429. A number for "
            'each model, or JSON: {"gemini-3.5-flash": 3000000}, where "*" stands for all others.',
            show_default="no limit",
        ),
    ] = None
    max_spend: Annotated[
        float | None,
        Setting(
            "Most money for the input of jobs that are created within ten minutes, in US dollars. A job beyond it is "
            "refused with status 429.",
            min=0,
            show_default="no limit",
        ),
    ] = None
    token_price: Annotated[float, Setting("Price of a million input tokens for --max-spend, in US dollars.", min=0)] = (
        0.75
    )
    max_inline_bytes: Annotated[int, Setting("Largest body of a create call, in bytes.", min=1)] = 20 * MIB
    max_file_bytes: Annotated[int, Setting("Largest uploaded file, in bytes.", min=1)] = 2 * GIB
    max_storage_bytes: Annotated[int, Setting("Largest sum of all uploaded files, in bytes.", min=1)] = 20 * GIB
    max_page_size: Annotated[int, Setting("Most jobs on one page of a list.", min=1)] = 1000

    answer_as: Annotated[
        str | None,
        Setting(
            "Model that answers, and is billed, in place of the one that a job asks for.",
            show_default="the model that was asked for",
        ),
    ] = None
    embedding_dimensions: Annotated[int, Setting("Length of a vector if the request does not give one.", min=1)] = 768

    webhook_signature: Annotated[
        Literal["v1a", "jwt"],
        Setting("Signature of events of jobs with a webhook of their own: v1a (Ed25519) or jwt (RS256)."),
    ] = "v1a"
    webhook_retry_seconds: Annotated[
        float,
        Setting(
            "Pause before an event is sent again that was not answered with 2xx, in seconds of real time. Each further "
            "pause is twice as long.",
            min=0,
        ),
    ] = 1.0
    webhooks_anywhere: Annotated[bool, Setting("Send webhooks to any host; or to this machine only.")] = False

    storage_url: Annotated[
        str | None,
        Setting("URL of a Cloud Storage server for input and output.", show_default="STORAGE_EMULATOR_HOST"),
    ] = None
    bigquery_url: Annotated[
        str | None,
        Setting("URL of a BigQuery server for input and output.", show_default="BIGQUERY_EMULATOR_HOST"),
    ] = None
    tokens: Annotated[
        frozenset[str],
        Setting("Bearer token to accept. Can be repeated.", option="token", show_default="any token"),
    ] = frozenset()
    vertex_queue_seconds: Annotated[
        float, Setting("Age at which a job that does not run yet becomes EXPIRED, in seconds.", min=0)
    ] = 72 * HOUR
    vertex_run_seconds: Annotated[
        float,
        Setting(
            "Time after which a RUNNING job becomes EXPIRED, in seconds. The rows done by then are delivered.",
            min=0,
        ),
    ] = 24 * HOUR
    vertex_cancelling_seconds: Annotated[
        float, Setting("Shortest time that a cancelled job is CANCELLING, in seconds.", min=0)
    ] = 0.0
    vertex_max_requests: Annotated[int, Setting("Most rows in a job of text.", min=1)] = 200_000
    vertex_max_embeddings: Annotated[int, Setting("Most rows in a job of embeddings.", min=1)] = 1_000_000
    vertex_max_file_bytes: Annotated[int, Setting("Largest input file, in bytes.", min=1)] = GIB
    vertex_shuffle: Annotated[
        bool,
        Setting("Return rows in another order, the same one on every run; or in the order of the input."),
    ] = True
    vertex_shard_bytes: Annotated[
        int | None,
        Setting(
            "Size of the files that predictions are split into, in bytes; approximate.",
            min=1,
            show_default="one file",
        ),
    ] = None

    def knows_model(self, name: str) -> bool:
        """Whether a job may be created for a model, which is named without `models/`."""
        return name.startswith(("gemini-", "text-embedding")) or name in self.models
