"""The command `lowtide-emulator`."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lowtide_emulator.answering import load_answers, load_function
from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer, ServerError
from lowtide_emulator.faults import load_rules
from lowtide_emulator.options import options_from, variables
from lowtide_emulator.server import Emulator
from lowtide_emulator.settings import Setting, Settings
from lowtide_emulator.terminal import discard_output, in_words, prepare_streams, unknown_variables

app = typer.Typer(
    help="A local emulator of the Gemini batch API: of the Gemini Developer API and of Vertex AI.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables of 80 columns cut the names of options
    pretty_exceptions_enable=False,
)

SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, kw_only=True)
class ServeSettings(Settings):
    """The settings of `serve`: those of the emulator, and what the command does before it serves."""

    answers: Annotated[
        Path | None,
        Setting(
            'JSONL file of fixed answers: {"key": …, "response": …} or {"key": …, "error": …}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None
    answer_function: Annotated[
        str | None,
        Setting(
            "Function that answers, as module:function. It takes a request (dict) and returns a response (dict) or a "
            "RowError.",
        ),
    ] = None
    faults: Annotated[Path | None, Setting("JSON file with a list of fault rules.", exists=True, dir_okay=False)] = None
    cloud: Annotated[bool, Setting("Start stand-ins for Cloud Storage and BigQuery and use them.")] = False


@app.callback()
def _root() -> None:
    """Keeps `serve` a command of its own; other commands may follow."""


@app.command()
@options_from(ServeSettings)
def serve(settings: ServeSettings) -> None:
    """Serve both APIs on one port, until Ctrl-C.

    The Gemini Developer API needs nothing else. Vertex AI's jobs read and write Cloud Storage or BigQuery: give the
    URLs of servers with --storage-url and --bigquery-url, or start stand-ins with --cloud (this needs the extra
    "vertex-emulator").
    """
    for problem in unknown_variables(variables(ServeSettings)):
        _say(f"warning: {problem}")
    # Answering threads and the server share one interpreter: a short switch interval keeps replies quick while
    # results are written.
    sys.setswitchinterval(SWITCH_SECONDS)
    # SIGTERM must remove the temporary folder too, so it ends the command as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as servers:
            if settings.cloud:
                settings = _start_cloud(settings, servers)
            emulator = Emulator(settings)
            servers.callback(emulator.close)
            if settings.answer_function is not None:
                emulator.answer = load_function(settings.answer_function)
            if settings.answers is not None:
                emulator.set_canned(load_answers(settings.answers))
            if settings.faults is not None:
                emulator.set_faults(load_rules(settings.faults))
            _greet(emulator)
            emulator.serve()
    except BrokenPipeError:
        raise
    except (OSError, ValueError, ServerError) as error:
        discard_output()
        _say(in_words(error, settings))
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass


def _start_cloud(settings: ServeSettings, servers: ExitStack) -> ServeSettings:
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
            'Vertex AI too - genai.Client(vertexai=True, project="any", location="us-central1", '
            f'credentials=Credentials(token="any"), http_options={{"base_url": "{url}"}})'
        )
        for name, server in (
            ("STORAGE_EMULATOR_HOST", settings.storage_url),
            ("BIGQUERY_EMULATOR_HOST", settings.bigquery_url),
        ):
            if server:
                console.print(f"{name}={server}")


def _say(problem: str) -> None:
    # A reader of the log searches for whole lines.
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"lowtide-emulator: {problem}")


def main() -> None:
    """Runs the command. Ends with one line on standard error if its output cannot be written."""
    prepare_streams()
    try:
        try:
            app(prog_name="lowtide-emulator")
        finally:
            # A full disk is an expected error here. When the process ends it would be a traceback.
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        sys.exit(1)
    except OSError as error:
        discard_output()
        _say(in_words(error, ServeSettings()))
        sys.exit(1)


if __name__ == "__main__":
    main()
