"""The command line as users see it: every command, its options and its help.

Longer than the other modules because it is the one list of all commands. Each body imports what does the work only
when it runs, so that `--help` and shell completion stay quick.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from lowtide_cli import exits
from lowtide_cli.errors import one_line
from lowtide_cli.surroundings import bad_argument, prepare_streams, tell_unknown_variables

app = typer.Typer(
    name="lowtide",
    help="A job queue for batch inference on Gemini: half the price, nothing lost, nothing paid twice.",
    epilog=exits.HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_ONE_MACHINE, _BATCHES, _OPERATIONS = "On one machine", "Batches", "Operations"

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Batch id, as `submit` printed it.", show_default=False)]
Letters = Annotated[list[str], typer.Argument(metavar="ID...", help="As `dead-letters list` prints them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand not in {"version", "demo"}:
        tell_unknown_variables()


@app.command(rich_help_panel=_ONE_MACHINE)
def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for data and logs.", show_default="~/.lowtide", file_okay=False),
    ] = None,
    emulator: Annotated[
        bool | None,
        typer.Option(
            "--emulator/--no-emulator",
            help="Work with an emulator instead of Google.",
            show_default="when nothing says how to reach Google",
        ),
    ] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower.")] = True,
    one_worker: Annotated[bool, typer.Option("--one-worker", help="One worker for both queues.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the jobs worker.")] = 8,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the results worker.")] = 2,
    redis_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Redis port.", show_default="6379, or a free one")
    ] = 0,
    emulator_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Emulator port.", show_default="8080, or a free one")
    ] = 0,
    storage_port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port of a stand-in for Cloud Storage.", show_default="4443, or a free one"
        ),
    ] = 0,
    bigquery_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of a stand-in for BigQuery.", show_default="9050, or a free one")
    ] = 0,
    flower_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Flower port.", show_default="5555, or a free one")
    ] = 0,
) -> None:
    """Run Redis, workers, Flower and an emulator here, until Ctrl-C.

    An embedded Redis-compatible server runs unless LOWTIDE_REDIS_URL is set, the emulator unless GEMINI_API_KEY or
    GOOGLE_API_KEY is (here or in .env); with LOWTIDE_PROVIDER=vertex, unless GOOGLE_CLOUD_PROJECT and
    LOWTIDE_VERTEX_STORAGE are. The emulator of Vertex AI brings stand-ins for Cloud Storage and BigQuery along.
    Flower's password is generated, or LOWTIDE_FLOWER_BASIC_AUTH=user:password.
    """
    from lowtide_cli.up import Options
    from lowtide_cli.up import up as run

    options = Options(
        data_dir=data_dir, emulator=emulator, flower=flower, one_worker=one_worker, threads=threads,
        processes=processes, redis_port=redis_port, emulator_port=emulator_port, storage_port=storage_port,
        bigquery_port=bigquery_port, flower_port=flower_port,
    )  # fmt: skip
    raise typer.Exit(run(options))


@app.command(rich_help_panel=_ONE_MACHINE)
def demo(
    flower: Annotated[bool, typer.Option("--flower", help="Run Flower too, and leave it up until Ctrl-C.")] = False,
    vertex: Annotated[
        bool, typer.Option("--vertex", help="On Vertex AI: from and to Cloud Storage, then BigQuery, emulated too.")
    ] = False,
) -> None:
    """Run a few hundred real requests through real processes, and check every result.

    Everything runs in a temporary folder on free ports, against the emulator: no key, no cost, nothing left behind.
    """
    from lowtide_cli.demo import demo as run

    raise typer.Exit(run(flower=flower, vertex=vertex))


@app.command(rich_help_panel=_BATCHES, epilog=exits.HELP)
def submit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="Requests, one a line; - for standard input; on Vertex AI also gs://bucket/path or bq://project.dataset.table.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Model, as in gemini-2.5-flash.", show_default=False)],
    on_result: Annotated[str | None, typer.Option(help="Handler that is given the results.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting the same content under it again gives the same batch.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label; repeat for more.")] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="file|inline", help="How requests travel.", show_default="LOWTIDE_MODE")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="Jobs that may carry one request.", show_default="LOWTIDE_MAX_ATTEMPTS")
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Higher ones go first while the provider takes no more.")
    ] = 0,
    outcome: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON=retry|fail|succeed", help="How rows of this reason are counted; repeat for more."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(metavar="gemini|vertex", help="Whose batch API runs it.", show_default="LOWTIDE_PROVIDER"),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="generation|embedding", help="What is asked of the model.")
    ] = "generation",
    destination: Annotated[
        str | None, typer.Option(help="On Vertex AI: an empty gs:// or bq:// place that keeps the provider's output.")
    ] = None,
    key_column: Annotated[str, typer.Option(help="The column of a bq:// table that holds the keys.")] = "key",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch it until it is finished.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results there when finished; implies --wait.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a batch and print its id."""
    from lowtide_cli.submit import Submission
    from lowtide_cli.submit import submit as run

    submission = Submission(
        file=file, model=model, on_result=on_result, idempotency_key=idempotency_key, labels=label or [], mode=mode,
        max_attempts=max_attempts, priority=priority, outcomes=outcome or [], provider=provider, kind=kind,
        destination=destination, key_column=key_column,
    )  # fmt: skip
    raise typer.Exit(run(submission, wait=wait, output=output, as_json=as_json))


@app.command("list", rich_help_panel=_BATCHES)
def list_(
    state: Annotated[str | None, typer.Option(help="Only batches in this state.")] = None,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Batches on a page.")] = 20,
    page_token: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from lowtide_cli.reading import list_batches

    list_batches(state=state, page_size=page_size, page_token=page_token, as_json=as_json)


@app.command(rich_help_panel=_BATCHES, epilog=exits.HELP)
def status(batch: BatchId, as_json: AsJson = False) -> None:
    """Show where a batch stands."""
    from lowtide_cli.reading import show_status

    raise typer.Exit(show_status(batch, as_json=as_json))


@app.command(rich_help_panel=_BATCHES, epilog=exits.HELP)
def watch(
    batch: BatchId, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line per change.")] = False
) -> None:
    """Watch a batch until it is finished."""
    from lowtide_cli.watch import watch as run

    raise typer.Exit(run(batch, as_json=as_json))


@app.command(rich_help_panel=_BATCHES, epilog=exits.HELP)
def results(
    batch: BatchId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, whole or not at all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Results are always JSON lines.", hidden=True)] = False,
) -> None:
    """Print the results of a batch, one JSON line per request."""
    del as_json
    from lowtide_cli.results import results as run

    raise typer.Exit(run(batch, output))


@app.command(rich_help_panel=_BATCHES)
def cancel(
    batch: BatchId, wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has stopped.")] = False
) -> None:
    """Stop a batch; what is done already is kept."""
    from lowtide_cli.ending import cancel as run

    raise typer.Exit(run(batch, wait=wait))


@app.command(rich_help_panel=_BATCHES)
def delete(
    batch: BatchId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is gone.")] = 60.0,
) -> None:
    """Delete a finished batch and all it left, here and at the provider."""
    from lowtide_cli.ending import delete as run

    raise typer.Exit(run(batch, yes=yes, timeout=timeout))


@app.command(rich_help_panel=_OPERATIONS)
def jobs(
    provider: Annotated[
        str | None, typer.Option(metavar="gemini|vertex", help="Whose jobs.", show_default="LOWTIDE_PROVIDER")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the provider's own jobs, ours and others'."""
    from lowtide_cli.provider_jobs import show_jobs

    show_jobs(provider=provider, as_json=as_json)


dead_letters = typer.Typer(
    name="dead-letters", no_args_is_help=True, help="Segments that no handler took, and unreadable messages."
)
app.add_typer(dead_letters, rich_help_panel=_OPERATIONS)


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, help="Most to print.")] = 50, as_json: AsJson = False
) -> None:
    """List the newest dead letters."""
    from lowtide_cli.dead_letters import list_letters

    list_letters(limit=limit, as_json=as_json)


@dead_letters.command("show")
def show_dead_letter(
    letter: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: AsJson = False
) -> None:
    """Show all that is known of one dead letter."""
    from lowtide_cli.dead_letters import show_letter

    show_letter(letter, as_json=as_json)


@dead_letters.command("redeliver")
def redeliver_dead_letters(
    letters: Letters = [],  # noqa: B006 - Typer's way to say "none or more"
    every: Annotated[bool, typer.Option("--all", help="Every parked segment.")] = False,
) -> None:
    """Hand parked segments to their handlers again, all tries anew."""
    from lowtide_cli.dead_letters import redeliver

    if not letters and not every:
        raise typer.BadParameter("give ids, or --all", param_hint="ID...")
    redeliver(letters, every=every)


@dead_letters.command("drop")
def drop_dead_letters(letters: Letters) -> None:
    """Forget dead letters; stored results stay."""
    from lowtide_cli.dead_letters import drop

    drop(letters)


installation = typer.Typer(
    name="installation",
    invoke_without_command=True,
    help="Whether Redis and the spool belong together, and how to join them again.",
)
app.add_typer(installation, rich_help_panel=_OPERATIONS)


@installation.callback()
def show_installation(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the installation's id in Redis and in the spool. Exits with 1 where they are not the same."""
    if context.invoked_subcommand is None:
        from lowtide_cli.installation import show

        raise typer.Exit(show(as_json=as_json))


@installation.command("adopt")
def adopt_installation(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    over: Annotated[
        bool, typer.Option("--over", help="Even if Redis has another id: what it holds is then the spool's.")
    ] = False,
) -> None:
    """Give Redis the id of the spool, or a spool without one that of Redis.

    Only where you have made sure that they are to belong together: Redis lost its data, or the spool was moved.
    """
    from lowtide_cli.installation import adopt

    raise typer.Exit(adopt(yes=yes, over=over))


@app.command(rich_help_panel=_OPERATIONS)
def doctor(as_json: AsJson = False) -> None:
    """Check Redis, spool, provider, its places in Google Cloud and workers, and say what to mend.

    Exits with 1 if anything fails.
    """
    from lowtide_cli.doctor import doctor as run

    raise typer.Exit(run(as_json=as_json))


@app.command(rich_help_panel=_OPERATIONS)
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"lowtide {installed('lowtide')}")


def _end_in_order() -> None:
    """Has a polite kill, or a closed terminal, unwind what runs, so that it takes back what is half done.

    The exit code is then 128 and the signal's number, as a shell tells it of a process that was killed by one.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for polite in (signal.SIGTERM, signal.SIGHUP):
        # `nohup` has the second ignored, and it must stay so.
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, end)


def main() -> None:
    """Runs the command line; a foreseen error is one line on standard error."""
    _end_in_order()
    try:
        prepare_streams()
        if problem := bad_argument(sys.argv[1:]):
            _end(problem, exits.Exit.USAGE)
        try:
            app(prog_name="lowtide")
        finally:
            # Here a full disk can still be told; at the end of the process it would be a traceback.
            sys.stdout.flush()
    except BrokenPipeError:
        # `lowtide results ... | head` is no error.
        _discard_output()
        sys.exit(exits.Exit.ERROR)
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        _discard_output()
        _end(line, exits.Exit.ERROR)


def _end(line: str, code: exits.Exit) -> NoReturn:
    """Tells an error. Its further lines are set in, so that none can look like one of ours."""
    from lowtide.text import printable  # deferred: `--help` must be quick

    typer.echo("lowtide: " + printable(line).replace("\n", "\n  "), err=True)
    sys.exit(code)


def _discard_output() -> None:
    """Drops the rest of standard output, so that it is not tried again at the end of the process."""
    if sys.stdout is None:
        return
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
