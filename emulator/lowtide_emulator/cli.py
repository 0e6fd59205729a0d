"""The command ``lowtide-emulator``."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from typing import Annotated, cast

import msgspec
import typer
from msgspec import Raw
from rich.console import Console

from lowtide_emulator.answers import Answer, RowError
from lowtide_emulator.server import Emulator
from lowtide_emulator.settings import HOUR, Settings

app = typer.Typer(
    help="A local emulator of the Gemini batch API.",
    no_args_is_help=True,
    add_completion=False,
)

SWITCH_SECONDS = 0.0005


class CannedLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of an answers file: a key with either a response or an error."""

    key: str
    response: Raw = Raw(b"null")
    error: RowError | None = None


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
    """Serve until Ctrl-C."""
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
    )
    # Answering threads and the server share one interpreter: a short switch interval keeps the
    # replies quick while results are being written.
    sys.setswitchinterval(SWITCH_SECONDS)
    # A polite kill must remove the temporary folder too, so it ends like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    emulator = Emulator(settings)
    try:
        if answer_function is not None:
            emulator.answer = load_function(answer_function)
        if answers is not None:
            emulator.set_canned(load_answers(answers))
        if faults is not None:
            emulator.set_faults(msgspec.json.decode(faults.read_bytes()))
        Console(soft_wrap=True, highlight=False).print(
            f"Gemini batch emulator at {emulator.url} - "
            f'genai.Client(api_key="any", http_options={{"base_url": "{emulator.url}"}}) '
            f"or GOOGLE_GEMINI_BASE_URL={emulator.url}",
            markup=False,
        )
        emulator.serve()
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"lowtide-emulator: {error}", markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass
    finally:
        emulator.close()


def load_function(path: str) -> Answer:
    """Return the function that ``module:function`` names."""
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot load {path!r}, expected module:function ({error})") from error
    return cast("Answer", function)


def load_answers(path: Path) -> dict[str, Raw | RowError]:
    """Return the fixed answers of a JSONL file, by key."""
    canned: dict[str, Raw | RowError] = {}
    decode = msgspec.json.Decoder(CannedLine).decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                entry = decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if entry.error is not None:
                canned[entry.key] = entry.error
            else:
                canned[entry.key] = entry.response.copy()
    return canned


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
