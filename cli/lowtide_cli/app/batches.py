"""Commands about batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowtide_cli.app.root import BATCHES, AsJson, BatchId, Provider, Yes, app
from lowtide_cli.terminal import EXIT_CODES


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES)
def submit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="Requests, one a line. Use - for standard input. Also gs://bucket/path, and on Vertex AI "
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
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS|TIME",
            help="When the batch gets no more jobs: seconds from now, or a time such as 2026-12-24T18:00:00+01:00.",
            show_default="LOWTIDE_BATCH_DEADLINE_SECONDS",
        ),
    ] = None,
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
    share: Annotated[
        bool | None,
        typer.Option("--share/--no-share", help="Share provider jobs with other small batches. Default: the setting."),
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
            "deadline": deadline,
            "provider": provider,
            "kind": kind,
            "destination": destination,
            "key_column": key_column,
            "key_field": key_field,
            "share": share,
        },
    )
    raise typer.Exit(run(submission, wait=wait, output=output, as_json=as_json))


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES)
def estimate(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="Requests, one a line. Use - for standard input.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, such as gemini-3.5-flash.", show_default=False)
    ],
    mode: Annotated[
        str | None,
        typer.Option(metavar="file|inline", help="How requests would be sent.", show_default="LOWTIDE_MODE"),
    ] = None,
    provider: Provider = None,
    kind: Annotated[
        str, typer.Option(metavar="generation|embedding", help="What to request from the model.")
    ] = "generation",
    key_field: Annotated[
        str | None, typer.Option(help="Field of each line that holds its key, or # for the line's number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a batch would be and would cost. Nothing is stored or sent."""
    from lowtide_cli.commands.estimate import show_estimate

    found = show_estimate(
        file, model=model, mode=mode, provider=provider, kind=kind, key_field=key_field, as_json=as_json
    )
    raise typer.Exit(found)


@app.command("list", rich_help_panel=BATCHES)
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


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES)
def status(batch: BatchId, as_json: AsJson = False) -> None:
    """Show the state of a batch and of its jobs."""
    from lowtide_cli.commands.status import show_status

    raise typer.Exit(show_status(batch, as_json=as_json))


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES)
def watch(
    batch: BatchId, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line per change.")] = False
) -> None:
    """Watch a batch until it is finished."""
    from lowtide_cli.commands.watch import watch as run

    raise typer.Exit(run(batch, as_json=as_json))


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES)
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


@app.command(rich_help_panel=BATCHES)
def cancel(
    batch: BatchId, wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has stopped.")] = False
) -> None:
    """Stop a batch. Its results so far are kept."""
    from lowtide_cli.commands.cancel import cancel as run

    raise typer.Exit(run(batch, wait=wait))


@app.command(rich_help_panel=BATCHES)
def delete(
    batch: BatchId,
    yes: Yes = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is deleted.")] = 60.0,
) -> None:
    """Delete a finished batch with all its data, here and at the provider."""
    from lowtide_cli.commands.delete import delete as run

    raise typer.Exit(run(batch, yes=yes, timeout=timeout))
