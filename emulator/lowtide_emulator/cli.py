"""The command ``lowtide-emulator``."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from lowtide_emulator.answering import load_answers, load_function
from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer, ServerError
from lowtide_emulator.server import Emulator
from lowtide_emulator.settings import HOUR, Settings

app = typer.Typer(
    help="A local emulator of the Gemini batch API: of the Gemini Developer API and of Vertex AI.",
    no_args_is_help=True,
    add_completion=False,
)

SWITCH_SECONDS = 0.0005
VERTEX = "Vertex AI"


def _env(name: str) -> str:
    return f"LOWTIDE_EMULATOR_{name}"


@app.callback()
def _root() -> None:
    """Keep ``serve`` a command of its own; there will be others beside it."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(envvar=_env("HOST"), help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar=_env("PORT"), help="Port; 0 chooses a free one.", min=0, max=65535)
    ] = 8080,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("DATA_DIR"),
            help="Where uploads and results are kept (default: a temporary one, removed at the end).",
            file_okay=False,
        ),
    ] = None,
    pending_seconds: Annotated[
        float, typer.Option(envvar=_env("PENDING_SECONDS"), help="How long a job is PENDING.", min=0)
    ] = 5.0,
    running_seconds: Annotated[
        float,
        typer.Option(envvar=_env("RUNNING_SECONDS"), help="How long a job is RUNNING.", min=0),
    ] = 10.0,
    expire_seconds: Annotated[
        float,
        typer.Option(envvar=_env("EXPIRE_SECONDS"), help="A job not done by then is EXPIRED.", min=0),
    ] = 48 * HOUR,
    file_seconds: Annotated[float, typer.Option(envvar=_env("FILE_SECONDS"), help="How long a file lives.", min=0)] = 48
    * HOUR,
    file_processing_seconds: Annotated[
        float,
        typer.Option(
            envvar=_env("FILE_PROCESSING_SECONDS"),
            help="How long an uploaded file is PROCESSING.",
            min=0,
        ),
    ] = 0.0,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar=_env("API_KEY"), help="An accepted API key; repeat for more (default: any)."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(envvar=_env("MODEL"), help="A model to accept besides gemini-* and text-embedding*."),
    ] = None,
    max_active_jobs: Annotated[
        int,
        typer.Option(envvar=_env("MAX_ACTIVE_JOBS"), help="More live jobs than this get a 429.", min=1),
    ] = 100,
    max_inline_bytes: Annotated[
        int,
        typer.Option(envvar=_env("MAX_INLINE_BYTES"), help="Largest body of a create call.", min=1),
    ] = 20 * 1024 * 1024,
    max_file_bytes: Annotated[
        int, typer.Option(envvar=_env("MAX_FILE_BYTES"), help="Largest uploaded file.", min=1)
    ] = 2 * 1024**3,
    max_storage_bytes: Annotated[
        int,
        typer.Option(envvar=_env("MAX_STORAGE_BYTES"), help="All uploaded files together.", min=1),
    ] = 20 * 1024**3,
    max_page_size: Annotated[
        int, typer.Option(envvar=_env("MAX_PAGE_SIZE"), help="Largest page of a list.", min=1)
    ] = 1000,
    refuse_delete_of_live: Annotated[
        bool,
        typer.Option(
            "--refuse-delete-of-live",
            envvar=_env("REFUSE_DELETE_OF_LIVE"),
            help="Refuse to delete a job that is not done.",
        ),
    ] = False,
    embedding_dimensions: Annotated[
        int,
        typer.Option(
            envvar=_env("EMBEDDING_DIMENSIONS"),
            help="Length of a vector when the request names none.",
            min=1,
        ),
    ] = 768,
    answer_threads: Annotated[
        int,
        typer.Option(envvar=_env("ANSWER_THREADS"), help="Jobs answered at the same time.", min=1),
    ] = 2,
    answers: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("ANSWERS"),
            help='JSONL of fixed answers: {"key": …, "response": …} or {"key": …, "error": …}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    answer_function: Annotated[
        str | None,
        typer.Option(
            envvar=_env("ANSWER_FUNCTION"),
            help="module:function from a request (dict) to a response (dict) or a RowError.",
        ),
    ] = None,
    cloud: Annotated[
        bool,
        typer.Option(
            "--cloud",
            envvar=_env("CLOUD"),
            help="Start stand-ins for Cloud Storage and BigQuery, too, and use them.",
            rich_help_panel=VERTEX,
        ),
    ] = False,
    storage_url: Annotated[
        str | None,
        typer.Option(
            envvar=_env("STORAGE_URL"),
            help="A Cloud Storage server for input and output (default: STORAGE_EMULATOR_HOST).",
            rich_help_panel=VERTEX,
        ),
    ] = None,
    bigquery_url: Annotated[
        str | None,
        typer.Option(
            envvar=_env("BIGQUERY_URL"),
            help="A BigQuery server for input and output (default: BIGQUERY_EMULATOR_HOST).",
            rich_help_panel=VERTEX,
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            envvar=_env("TOKEN"),
            help="An accepted Bearer token; repeat for more (default: any).",
            rich_help_panel=VERTEX,
        ),
    ] = None,
    vertex_queue_seconds: Annotated[
        float,
        typer.Option(
            envvar=_env("VERTEX_QUEUE_SECONDS"),
            help="A job not running by then is EXPIRED.",
            min=0,
            rich_help_panel=VERTEX,
        ),
    ] = 72 * HOUR,
    vertex_run_seconds: Annotated[
        float,
        typer.Option(
            envvar=_env("VERTEX_RUN_SECONDS"),
            help="A job running longer is EXPIRED; what it has done is delivered.",
            min=0,
            rich_help_panel=VERTEX,
        ),
    ] = 24 * HOUR,
    vertex_cancelling_seconds: Annotated[
        float,
        typer.Option(
            envvar=_env("VERTEX_CANCELLING_SECONDS"),
            help="How long a cancelled job is CANCELLING.",
            min=0,
            rich_help_panel=VERTEX,
        ),
    ] = 0.0,
    vertex_max_requests: Annotated[
        int,
        typer.Option(envvar=_env("VERTEX_MAX_REQUESTS"), help="Most rows of a job.", min=1, rich_help_panel=VERTEX),
    ] = 200_000,
    vertex_max_embeddings: Annotated[
        int,
        typer.Option(
            envvar=_env("VERTEX_MAX_EMBEDDINGS"),
            help="Most rows of a job of embeddings.",
            min=1,
            rich_help_panel=VERTEX,
        ),
    ] = 1_000_000,
    vertex_max_file_bytes: Annotated[
        int,
        typer.Option(envvar=_env("VERTEX_MAX_FILE_BYTES"), help="Largest input file.", min=1, rich_help_panel=VERTEX),
    ] = 1024**3,
    vertex_shuffle: Annotated[
        bool,
        typer.Option(
            envvar=_env("VERTEX_SHUFFLE"),
            help="Whether rows come back in another order.",
            rich_help_panel=VERTEX,
        ),
    ] = True,
    vertex_shard_bytes: Annotated[
        int | None,
        typer.Option(
            envvar=_env("VERTEX_SHARD_BYTES"),
            help="Split predictions into files of about this size (default: one file).",
            min=1,
            rich_help_panel=VERTEX,
        ),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("FAULTS"),
            help="JSON list of fault rules to start with.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Serve until Ctrl-C: both APIs on one port.

    The Gemini Developer API needs nothing else. Vertex AI's jobs read and write Cloud Storage or BigQuery: name
    servers with --storage-url and --bigquery-url, or have stand-ins started with --cloud (this needs the extra
    "vertex-emulator").
    """
    settings = Settings(
        host=host,
        port=port,
        data_dir=data_dir,
        pending_seconds=pending_seconds,
        running_seconds=running_seconds,
        expire_seconds=expire_seconds,
        file_seconds=file_seconds,
        file_processing_seconds=file_processing_seconds,
        api_keys=frozenset(api_key or ()),
        models=frozenset(model or ()),
        max_active_jobs=max_active_jobs,
        max_inline_bytes=max_inline_bytes,
        max_file_bytes=max_file_bytes,
        max_storage_bytes=max_storage_bytes,
        max_page_size=max_page_size,
        refuse_delete_of_live=refuse_delete_of_live,
        embedding_dimensions=embedding_dimensions,
        answer_threads=answer_threads,
        storage_url=storage_url,
        bigquery_url=bigquery_url,
        tokens=frozenset(token or ()),
        vertex_queue_seconds=vertex_queue_seconds,
        vertex_run_seconds=vertex_run_seconds,
        vertex_cancelling_seconds=vertex_cancelling_seconds,
        vertex_max_requests=vertex_max_requests,
        vertex_max_embeddings=vertex_max_embeddings,
        vertex_max_file_bytes=vertex_max_file_bytes,
        vertex_shuffle=vertex_shuffle,
        vertex_shard_bytes=vertex_shard_bytes,
    )
    # Answering threads and the server share one interpreter: a short switch interval keeps the
    # replies quick while results are being written.
    sys.setswitchinterval(SWITCH_SECONDS)
    # A polite kill must remove the temporary folder too, so it ends like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as servers:
            if cloud:
                settings = _start_cloud(settings, servers)
            emulator = Emulator(settings)
            servers.callback(emulator.close)
            if answer_function is not None:
                emulator.answer = load_function(answer_function)
            if answers is not None:
                emulator.set_canned(load_answers(answers))
            if faults is not None:
                emulator.set_faults(msgspec.json.decode(faults.read_bytes()))
            _greet(emulator)
            emulator.serve()
    except (OSError, ValueError, ServerError) as error:
        Console(stderr=True).print(f"lowtide-emulator: {error}", markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass


def _start_cloud(settings: Settings, servers: ExitStack) -> Settings:
    folder = settings.data_dir / "cloud" if settings.data_dir is not None else None
    if folder is None:
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-cloud-")))
    storage = servers.enter_context(CloudStorageServer(folder))
    bigquery = servers.enter_context(BigQueryServer(folder))
    return replace(settings, storage_url=storage.url, bigquery_url=bigquery.url)


def _greet(emulator: Emulator) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    url, settings = emulator.url, emulator.settings
    console.print(
        f"Gemini batch emulator at {url} - "
        f'genai.Client(api_key="any", http_options={{"base_url": "{url}"}}) '
        f"or GOOGLE_GEMINI_BASE_URL={url}"
    )
    if settings.storage_url or settings.bigquery_url:
        console.print(
            'Vertex AI, too - genai.Client(vertexai=True, project="any", location="us-central1", '
            f'credentials=Credentials(token="any"), http_options={{"base_url": "{url}"}})'
        )
        for name, server in (
            ("STORAGE_EMULATOR_HOST", settings.storage_url),
            ("BIGQUERY_EMULATOR_HOST", settings.bigquery_url),
        ):
            if server:
                console.print(f"{name}={server}")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
