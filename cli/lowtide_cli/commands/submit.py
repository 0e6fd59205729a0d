"""`lowtide submit`: submits a file of requests as a batch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from lowtide import Batch, BatchOptions, BatchQueue, InvalidBatch, InvalidRequest
from lowtide_cli.batches import pairs
from lowtide_cli.commands.results import write_results
from lowtide_cli.commands.watch import follow
from lowtide_cli.terminal import CommandError, Exit, exit_of
from lowtide_cli.terminal.output import print_json

_STDIN = "-"
_WORDS = {"model": "--model", "labels": "--label", "outcomes": "--outcome"}
"""The command's words for options of `submit` that are not named as in Python."""


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
    deadline = submission.options.get("deadline")
    options: BatchOptions = {
        **submission.options,
        "deadline": float(deadline) if isinstance(deadline, str) and _is_number(deadline) else deadline,
        "labels": pairs(submission.labels, "--label", "NAME=VALUE"),
        "outcomes": pairs(submission.outcomes, "--outcome", "REASON=retry|fail|succeed"),
    }
    requests = sys.stdin.buffer if submission.file == _STDIN else submission.file
    try:
        return BatchQueue().submit(requests, model=submission.model, **options)
    except InvalidRequest as error:
        name = "standard input" if submission.file == _STDIN else submission.file
        raise CommandError(str(error) if error.source else f"{name}: {error}") from error
    except InvalidBatch as error:
        place, _, problem = str(error).partition(": ")
        name, _, entry = place.partition(".")
        if name not in _WORDS and name not in submission.options:
            raise
        hint = _WORDS.get(name) or f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{entry}: {problem}" if entry else problem, param_hint=hint) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
