"""`lowtide submit`: submits a file of requests as a batch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from lowtide import Batch, BatchOptions, BatchQueue, InvalidBatch, InvalidRequest, LowtideError
from lowtide.interruptions import came_before_the_record, not_recorded
from lowtide_cli.batches import pairs
from lowtide_cli.commands.estimate import print_estimate
from lowtide_cli.commands.results import check_output, write_results
from lowtide_cli.commands.watch import follow
from lowtide_cli.terminal import NOTHING_SUBMITTED, CommandError, Exit, exit_of
from lowtide_cli.terminal.output import busy, print_json, stderr
from lowtide_cli.terminal.streams import standard_input

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
    with _said_what_is_left():
        with not_recorded():
            if output is not None:
                check_output(output)
            queue, requests, options = BatchQueue(), _requests(submission), _options(submission)
        with _named_errors(submission), _shown(submission):
            batch = queue.submit(requests, model=submission.model, **options)
        if as_json:
            print_json({"batch_id": batch.id}, indent=0)
        else:
            # Standard output may be for the results, which the id must not mix with.
            typer.echo(batch.id, err=output == Path(_STDIN))
    if not wait and output is None:
        return Exit.OK
    status = follow(batch, on_stderr=True)
    if status is None:
        if output is not None:
            where = "" if output == Path(_STDIN) else f" -o {shlex.quote(str(output))}"
            then = f"no results are written; when it is finished: lowtide results {batch.id}{where}"
            stderr().print(then, soft_wrap=True, markup=False)
        return Exit.INTERRUPTED
    if output is not None:
        _write(batch, output)
    return exit_of(status)


def _write(batch: Batch, output: Path) -> None:
    try:
        write_results(batch, output)
    except (CommandError, LowtideError) as error:
        raise CommandError(f"{error}\nthe results are stored: lowtide results {batch.id} -o FILE") from error


def try_out(submission: Submission, *, as_json: bool) -> Exit:
    """Prints what the batch would be and would cost; returns `ERROR` where `submit` would refuse a request."""
    with _named_errors(submission), _shown(submission):
        found = BatchQueue().estimate(_requests(submission), model=submission.model, **_options(submission))
    return print_estimate(found, submission.model, as_json=as_json)


def _options(submission: Submission) -> BatchOptions:
    deadline = submission.options.get("deadline")
    return {
        **submission.options,
        "deadline": float(deadline) if isinstance(deadline, str) and _is_number(deadline) else deadline,
        "labels": pairs(submission.labels, "--label", "NAME=VALUE"),
        "outcomes": pairs(submission.outcomes, "--outcome", "REASON=retry|fail|succeed"),
    }


def _requests(submission: Submission) -> Any:
    return standard_input("requests, one a line,") if submission.file == _STDIN else submission.file


def _shown(submission: Submission) -> AbstractContextManager[object]:
    """Shows that the requests are being read, which takes long for a large file. Not where a person types them."""
    if submission.file == _STDIN and sys.stdin.isatty():
        return nullcontext()
    return busy("reading and checking the requests")


@contextmanager
def _said_what_is_left() -> Iterator[None]:
    """Gives Ctrl-C within the block a message about what is left."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        if came_before_the_record(interruption):
            raise KeyboardInterrupt(NOTHING_SUBMITTED) from interruption
        raise KeyboardInterrupt("the batch may be submitted: `lowtide list` shows it if it is") from interruption


@contextmanager
def _named_errors(submission: Submission) -> Iterator[None]:
    """Raises errors of a submit with the words of the command."""
    try:
        yield
    except InvalidRequest as error:
        name = "standard input" if submission.file == _STDIN else submission.file
        # The command has the parameter as an option.
        told = str(error).replace("key_field=", "--key-field ")
        raise CommandError(told if error.source else f"{name}: {told}") from error
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
