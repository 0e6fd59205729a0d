"""`lowtide submit`: submits a file of requests as a batch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from lowtide import Batch, BatchOptions, BatchQueue, InvalidRequest, Mode
from lowtide_cli.batches import pairs
from lowtide_cli.commands.results import write_results
from lowtide_cli.commands.watch import follow
from lowtide_cli.terminal import CommandError, Exit, exit_of
from lowtide_cli.terminal.output import print_json

_STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The file to submit and the options of its batch, as given on the command line."""

    file: str
    model: str
    labels: list[str]
    """As `NAME=VALUE`."""
    outcomes: list[str]
    """As `REASON=retry`, `REASON=fail` or `REASON=succeed`."""
    options: BatchOptions
    """All other options."""


def submit(submission: Submission, *, wait: bool, output: Path | None, as_json: bool) -> Exit:
    """Submits a batch and prints its id.

    - `wait`: watch the batch until it is finished.
    - `output`: file for the results, `-` for standard output. Implies `wait`.
    """
    batch = _submitted(submission)
    if as_json:
        print_json({"batch_id": batch.id}, indent=0)
    else:
        # Standard output may be for the results, which the id must not mix with.
        typer.echo(batch.id, err=output == Path(_STDIN))
    if not wait and output is None:
        return Exit.OK
    status = follow(batch, on_stderr=True)
    if status is None:
        return Exit.INTERRUPTED
    if output is not None:
        write_results(batch, output)
    return exit_of(status)


def _submitted(submission: Submission) -> Batch:
    mode = submission.options.get("mode")
    if mode is not None and mode not in set(Mode):
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(Mode)}", param_hint="--mode")
    options: BatchOptions = {
        **submission.options,
        "labels": pairs(submission.labels, "--label", "NAME=VALUE"),
        "outcomes": pairs(submission.outcomes, "--outcome", "REASON=retry|fail|succeed"),
    }
    requests = sys.stdin.buffer if submission.file == _STDIN else submission.file
    try:
        return BatchQueue().submit(requests, model=submission.model, **options)
    except InvalidRequest as error:
        name = "standard input" if submission.file == _STDIN else submission.file
        raise CommandError(str(error) if error.source else f"{name}: {error}") from error
