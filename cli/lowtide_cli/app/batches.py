"""Commands about batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowtide_cli.app.root import BATCHES, STATES, AsJson, BatchId, Provider, Yes, app, one_of
from lowtide_cli.terminal import EXIT_CODES, EXIT_CODES_OF_ESTIMATE, NOTHING_SUBMITTED, on_interruption


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
        str | None, typer.Option(metavar="HANDLER", help="Handler: a Celery task, an https:// URL or stream://NAME.")
    ] = None,
    on_finished: Annotated[
        str | None,
        typer.Option(
            metavar="HANDLER",
            help="Handler that is notified of the batch's end, named in the same way.",
            show_default="LOWTIDE_ON_FINISHED",
        ),
    ] = None,
    on_progress: Annotated[
        str | None,
        typer.Option(metavar="HANDLER", help="Handler that is notified of the batch's progress, about once a minute."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Key for safe retries: the same content with the same key returns the same batch."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label of the batch. Can be repeated.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            **one_of("file|inline"),
            help="How to send requests to the provider: in an uploaded file, or in the call that creates the job.",
            show_default="LOWTIDE_MODE",
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Most jobs that may carry one request: 1 to 100.",
            show_default="LOWTIDE_MAX_ATTEMPTS",
        ),
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Most that the batch may cost, in US dollars, such as 12.50.")
    ] = None,
    over_budget: Annotated[
        str,
        typer.Option(
            **one_of("fail|wait"),
            help="What happens to requests for which --max-cost leaves too little: they fail with the reason BUDGET, "
            "or wait until you raise it (lowtide set-max-cost) or the deadline passes.",
        ),
    ] = "fail",
    priority: Annotated[
        int,
        typer.Option(
            min=-100,
            max=100,
            metavar="-100..100",
            help="Priority while the provider accepts no more jobs: highest first.",
        ),
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
        str, typer.Option(**one_of("generation|embedding"), help="What to request from the model.")
    ] = "generation",
    destination: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="On Vertex AI: an empty gs:// or bq:// place for the provider's output, which stays there.",
        ),
    ] = None,
    key_column: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of a bq:// table that holds the keys.")
    ] = "key",
    key_field: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Field of each line that holds its key, or # for the line's number."),
    ] = None,
    share: Annotated[
        bool | None,
        typer.Option("--share/--no-share", help="Share provider jobs with other small batches. Default: the setting."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the batch would be and would cost. Nothing is stored or sent.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch the batch until it is finished.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the results to this file when the batch is finished. Implies --wait.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a batch and print its id."""
    with on_interruption(NOTHING_SUBMITTED):
        from lowtide_cli.commands.submit import Submission, try_out
        from lowtide_cli.commands.submit import submit as run

    submission = Submission(
        file=file,
        model=model,
        labels=label or [],
        outcomes=outcome or [],
        options={
            "on_result": on_result,
            "on_finished": on_finished,
            "on_progress": on_progress,
            "idempotency_key": idempotency_key,
            "mode": mode,
            "max_attempts": max_attempts,
            "max_cost": max_cost,
            "over_budget": over_budget,
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
    if dry_run:
        raise typer.Exit(try_out(submission, as_json=as_json))
    raise typer.Exit(run(submission, wait=wait, output=output, as_json=as_json))


@app.command(rich_help_panel=BATCHES, epilog=EXIT_CODES_OF_ESTIMATE)
def estimate(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="Requests, one a line. Use - for standard input.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, such as gemini-3.5-flash.", show_default=False)
    ],
    mode: Annotated[
        str | None,
        typer.Option(**one_of("file|inline"), help="How requests would be sent.", show_default="LOWTIDE_MODE"),
    ] = None,
    provider: Provider = None,
    kind: Annotated[
        str, typer.Option(**one_of("generation|embedding"), help="What to request from the model.")
    ] = "generation",
    key_field: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Field of each line that holds its key, or # for the line's number."),
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
    state: Annotated[
        str | None,
        typer.Option(
            **one_of(STATES),
            help="Print only batches in this state.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Print only batches with a label. Can be repeated."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Print only batches that share the jobs of a bundle, as lowtide status names it.")
    ] = None,
    page_size: Annotated[int, typer.Option(min=1, max=1000, metavar="1..1000", help="Batches on a page.")] = 20,
    page_token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Token for the next page, as the last page printed it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from lowtide_cli.commands.list import list_batches

    list_batches(
        state=state,
        labels=label or [],
        bundle=bundle,
        page_size=page_size,
        page_token=page_token,
        as_json=as_json,
    )


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
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file, which appears complete or not at all."
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            **one_of("jsonl|openai|csv|text"),
            help="Format: JSON lines, lines of OpenAI's batch output, CSV with a header line, or key, tab and text.",
        ),
    ] = "jsonl",
    key: Annotated[
        str | None,
        typer.Option("--key", "-k", metavar="KEY", help="Only the result of the request with this key."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The default is JSON lines.", hidden=True)] = False,
) -> None:
    """Print the results of a batch, one line per request."""
    del as_json
    from lowtide_cli.commands.results import results as run

    raise typer.Exit(run(batch, output, form, key=key))


@app.command(rich_help_panel=BATCHES)
def cancel(
    batch: BatchId, wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has stopped.")] = False
) -> None:
    """Stop a batch. Its results so far are kept."""
    from lowtide_cli.commands.cancel import cancel as run

    raise typer.Exit(run(batch, wait=wait))


@app.command("set-max-cost", rich_help_panel=BATCHES)
def set_max_cost(
    batch: BatchId,
    max_cost: Annotated[
        str, typer.Argument(metavar="DOLLARS", help="Most that it may cost, in US dollars.", show_default=False)
    ],
) -> None:
    """Change the most that a batch may cost, which was submitted with --max-cost.

    Jobs that wait for it go on. Requests that have failed with BUDGET stay failed.
    """
    from lowtide_cli.batches import find

    find(batch).set_max_cost(max_cost)


@app.command(rich_help_panel=BATCHES)
def delete(
    batch: BatchId,
    yes: Yes = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Longest wait until it is deleted.")] = 60.0,
) -> None:
    """Delete a finished batch with all its data, here and at the provider."""
    from lowtide_cli.commands.delete import delete as run

    raise typer.Exit(run(batch, yes=yes, timeout=timeout))
