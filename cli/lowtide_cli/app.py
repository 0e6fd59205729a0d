"""The list of all commands, with their options and help.

Each function imports the module that does the work when it runs, so that `--help` and shell completion are quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowtide_cli.terminal import EXIT_CODES, warn_of_unknown_variables

app = typer.Typer(
    name="lowtide",
    help="A job queue for batch inference on Gemini: half the price, nothing lost, nothing paid twice.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_ONE_MACHINE, _BATCHES, _OPERATIONS = "On one machine", "Batches", "Operations"

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Batch id, as printed by `submit`.", show_default=False)]
Letters = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as printed by `dead-letters list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Provider = Annotated[
    str | None, typer.Option(metavar="gemini|vertex", help="Provider to use.", show_default="LOWTIDE_PROVIDER")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def _port(server: str, usual: int) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=0, max=65535, help=f"Port of {server}.", show_default=f"{usual}, or a free one if it is taken"
    )
    return option


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
        warn_of_unknown_variables()


@app.command(rich_help_panel=_ONE_MACHINE)
def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for data and logs.", show_default="~/.lowtide", file_okay=False)
    ] = None,
    emulator: Annotated[
        bool | None,
        typer.Option(
            "--emulator/--no-emulator",
            help="Use an emulator instead of Google.",
            show_default="only if no access to Google is configured",
        ),
    ] = None,
    flower: Annotated[
        bool | None,
        typer.Option("--flower/--no-flower", help="Run Flower.", show_default="if it is installed"),
    ] = None,
    one_worker: Annotated[bool, typer.Option("--one-worker", help="Run one worker for both queues.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the jobs worker.")] = 8,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the results worker.")] = 2,
    redis_port: Annotated[int, _port("Redis", 6379)] = 0,
    emulator_port: Annotated[int, _port("the emulator", 8080)] = 0,
    storage_port: Annotated[int, _port("the stand-in for Cloud Storage", 4443)] = 0,
    bigquery_port: Annotated[int, _port("the stand-in for BigQuery", 9050)] = 0,
    flower_port: Annotated[int, _port("Flower", 5555)] = 0,
) -> None:
    """Run Redis, workers, Flower and an emulator on this machine, until Ctrl-C.

    An embedded Redis-compatible server runs unless LOWTIDE_REDIS_URL is set. The emulator runs unless GEMINI_API_KEY or
    GOOGLE_API_KEY is set (here or in .env); with LOWTIDE_PROVIDER=vertex, unless GOOGLE_CLOUD_PROJECT and
    LOWTIDE_VERTEX_STORAGE are set. The emulator of Vertex AI comes with stand-ins for Cloud Storage and BigQuery.
    Flower's login is generated once and kept; set LOWTIDE_FLOWER_BASIC_AUTH=user:password to choose it.
    """
    from lowtide_cli.commands.up import Options
    from lowtide_cli.commands.up import up as run

    options = Options(
        data_dir=data_dir,
        emulator=emulator,
        flower=flower,
        one_worker=one_worker,
        threads=threads,
        processes=processes,
        redis_port=redis_port,
        emulator_port=emulator_port,
        storage_port=storage_port,
        bigquery_port=bigquery_port,
        flower_port=flower_port,
    )
    raise typer.Exit(run(options))


@app.command(rich_help_panel=_ONE_MACHINE)
def demo(
    flower: Annotated[bool, typer.Option("--flower", help="Run Flower too, and keep it running until Ctrl-C.")] = False,
    vertex: Annotated[
        bool,
        typer.Option("--vertex", help="Use Vertex AI: from and to Cloud Storage, then BigQuery, all emulated."),
    ] = False,
) -> None:
    """Run a few hundred requests through real processes, and check every result.

    Everything runs in a temporary folder on free ports, against the emulator. It needs no key, costs nothing and leaves
    nothing behind.
    """
    from lowtide_cli.commands.demo import demo as run

    raise typer.Exit(run(flower=flower, vertex=vertex))


@app.command(rich_help_panel=_BATCHES, epilog=EXIT_CODES)
def submit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="Requests, one a line. Use - for standard input. On Vertex AI also gs://bucket/path, "
            "bq://project.dataset.table or projects/.../locations/.../datasets/...",
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, such as gemini-3.5-flash.", show_default=False)
    ],
    on_result: Annotated[
        str | None, typer.Option(help="Handler: a Celery task, an https:// URL or stream://NAME.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Key for safe retries: the same content with the same key returns the same batch."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label of the batch. Can be repeated.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="file|inline",
            help="How to send requests to the provider: in an uploaded file, or in the call that creates the job.",
            show_default="LOWTIDE_MODE",
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(help="Most jobs that may carry one request: 1 to 100.", show_default="LOWTIDE_MAX_ATTEMPTS"),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Priority while the provider accepts no more jobs: highest first.")
    ] = 0,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON=retry|fail|succeed",
            help="How to treat rows that fail with REASON: retry, fail or succeed. Can be repeated.",
        ),
    ] = None,
    provider: Provider = None,
    kind: Annotated[
        str, typer.Option(metavar="generation|embedding", help="What to request from the model.")
    ] = "generation",
    destination: Annotated[
        str | None,
        typer.Option(help="On Vertex AI: an empty gs:// or bq:// place for the provider's output, which stays there."),
    ] = None,
    key_column: Annotated[str, typer.Option(help="Column of a bq:// table that holds the keys.")] = "key",
    key_field: Annotated[
        str | None, typer.Option(help="Field of each line that holds its key, or # for the line's number.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch the batch until it is finished.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the results to this file when the batch is finished. Implies --wait."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a batch and print its id."""
    from lowtide_cli.commands.submit import Submission
    from lowtide_cli.commands.submit import submit as run

    submission = Submission(
        file=file,
        model=model,
        labels=label or [],
        outcomes=outcome or [],
        options={
            "on_result": on_result,
            "idempotency_key": idempotency_key,
            "mode": mode,
            "max_attempts": max_attempts,
            "priority": priority,
            "provider": provider,
            "kind": kind,
            "destination": destination,
            "key_column": key_column,
            "key_field": key_field,
        },
    )
    raise typer.Exit(run(submission, wait=wait, output=output, as_json=as_json))


@app.command("list", rich_help_panel=_BATCHES)
def list_(
    state: Annotated[str | None, typer.Option(help="Print only batches in this state.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Print only batches with a label. Can be repeated."),
    ] = None,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Batches on a page.")] = 20,
    page_token: Annotated[
        str | None, typer.Option(help="Token for the next page, as the last page printed it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from lowtide_cli.commands.list import list_batches

    list_batches(state=state, labels=label or [], page_size=page_size, page_token=page_token, as_json=as_json)


@app.command(rich_help_panel=_BATCHES, epilog=EXIT_CODES)
def status(batch: BatchId, as_json: AsJson = False) -> None:
    """Show the state of a batch and of its jobs."""
    from lowtide_cli.commands.status import show_status

    raise typer.Exit(show_status(batch, as_json=as_json))


@app.command(rich_help_panel=_BATCHES, epilog=EXIT_CODES)
def watch(
    batch: BatchId, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line per change.")] = False
) -> None:
    """Watch a batch until it is finished."""
    from lowtide_cli.commands.watch import watch as run

    raise typer.Exit(run(batch, as_json=as_json))


@app.command(rich_help_panel=_BATCHES, epilog=EXIT_CODES)
def results(
    batch: BatchId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, which appears complete or not at all.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="jsonl|openai|csv|text",
            help="Format: JSON lines, lines of OpenAI's batch output, CSV with a header line, or key, tab and text.",
        ),
    ] = "jsonl",
    as_json: Annotated[bool, typer.Option("--json", help="The default is JSON lines.", hidden=True)] = False,
) -> None:
    """Print the results of a batch, one line per request."""
    del as_json
    from lowtide_cli.commands.results import results as run

    raise typer.Exit(run(batch, output, form))


@app.command(rich_help_panel=_BATCHES)
def cancel(
    batch: BatchId, wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has stopped.")] = False
) -> None:
    """Stop a batch. Its results so far are kept."""
    from lowtide_cli.commands.cancel import cancel as run

    raise typer.Exit(run(batch, wait=wait))


@app.command(rich_help_panel=_BATCHES)
def delete(
    batch: BatchId,
    yes: Yes = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is deleted.")] = 60.0,
) -> None:
    """Delete a finished batch with all its data, here and at the provider."""
    from lowtide_cli.commands.delete import delete as run

    raise typer.Exit(run(batch, yes=yes, timeout=timeout))


@app.command(rich_help_panel=_OPERATIONS)
def jobs(provider: Provider = None, as_json: AsJson = False) -> None:
    """List all jobs of the account at the provider, Lowtide's and others'."""
    from lowtide_cli.commands.jobs import show_jobs

    show_jobs(provider=provider, as_json=as_json)


dead_letters = typer.Typer(
    name="dead-letters",
    no_args_is_help=True,
    help="Show, redeliver or drop undelivered segments and unreadable messages.",
)
app.add_typer(dead_letters, rich_help_panel=_OPERATIONS)


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, help="Most dead letters to print.")] = 50, as_json: AsJson = False
) -> None:
    """List the newest dead letters."""
    from lowtide_cli.commands.dead_letters import list_letters

    list_letters(limit=limit, as_json=as_json)


@dead_letters.command("show")
def show_dead_letter(
    letter: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: AsJson = False
) -> None:
    """Show all details of one dead letter."""
    from lowtide_cli.commands.dead_letters import show_letter

    show_letter(letter, as_json=as_json)


@dead_letters.command("redeliver")
def redeliver_dead_letters(
    letters: Letters = [],  # noqa: B006 - Typer's way to say "none or more"
    every: Annotated[bool, typer.Option("--all", help="Redeliver every parked segment.")] = False,
) -> None:
    """Deliver parked segments to their handlers again, and count their attempts from one."""
    from lowtide_cli.commands.dead_letters import redeliver

    if not letters and not every:
        raise typer.BadParameter("give ids, or --all", param_hint="ID...")
    redeliver(letters, every=every)


@dead_letters.command("drop")
def drop_dead_letters(letters: Letters) -> None:
    """Remove dead letters. Stored results stay."""
    from lowtide_cli.commands.dead_letters import drop

    drop(letters)


installation = typer.Typer(
    name="installation",
    invoke_without_command=True,
    help="Show whether Redis and the spool belong together, and join them again.",
)
app.add_typer(installation, rich_help_panel=_OPERATIONS)


@installation.callback()
def show_installation(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the installation's id in Redis and in the spool. Exits with 1 if the two differ."""
    if context.invoked_subcommand is None:
        from lowtide_cli.commands.installation import show

        raise typer.Exit(show(as_json=as_json))


@installation.command("adopt")
def adopt_installation(
    yes: Yes = False,
    over: Annotated[
        bool, typer.Option("--over", help="Replace another id in Redis: its data then belongs to this spool.")
    ] = False,
) -> None:
    """Copy the spool's id to Redis, or Redis' id to a spool without one.

    Do this only if you are sure that the two belong together: Redis lost its data, or the spool was moved.
    """
    from lowtide_cli.commands.installation import adopt

    raise typer.Exit(adopt(yes=yes, over=over))


@app.command(rich_help_panel=_OPERATIONS)
def health(
    probe: Annotated[str, typer.Argument(metavar="live|ready", help="Question to the worker.", show_default=False)],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the worker.", show_default="LOWTIDE_HEALTH_PORT")
    ] = None,
) -> None:
    """Ask the worker on this machine whether it is alive, or ready for work.

    Exits with 1 if it is not.
    """
    from lowtide_cli.commands.health import health as run

    raise typer.Exit(run(probe, port=port))


@app.command(rich_help_panel=_OPERATIONS)
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on. 0: any free one.")] = 9464,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the metrics of this installation for Prometheus, until Ctrl-C."""
    from lowtide_cli.commands.metrics import metrics as run

    run(host=host, port=port)


@app.command(rich_help_panel=_OPERATIONS)
def flower(
    address: Annotated[str, typer.Option(help="Address that Flower listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Flower.")] = 5555,
) -> None:
    """Run Flower with the columns that show Lowtide's tasks, and print its address and login.

    The login is LOWTIDE_FLOWER_BASIC_AUTH=user:password, or is generated once and kept in ~/.lowtide/flower.
    """
    from lowtide_cli.commands.flower import flower as run

    run(address=address, port=port)


@app.command(rich_help_panel=_OPERATIONS)
def doctor(as_json: AsJson = False) -> None:
    """Check Redis, spool, provider, Google Cloud and workers, and say how to fix problems.

    Exits with 1 if a check fails: batches do not work, or results do not reach their handler. Warnings do not count.
    """
    from lowtide_cli.commands.doctor import doctor as run

    raise typer.Exit(run(as_json=as_json))


@app.command(rich_help_panel=_OPERATIONS)
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"lowtide {installed('lowtide')}")
