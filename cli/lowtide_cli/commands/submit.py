"""`lowtide submit`: submits a file of requests as a batch."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import typer

from lowtide import Batch, BatchOptions, BatchQueue, InvalidBatch, InvalidRequest
from lowtide.shaping import json_lines
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
    options: BatchOptions = {
        **submission.options,
        "labels": _pairs(submission.labels, "--label", "NAME=VALUE"),
        "outcomes": _pairs(submission.outcomes, "--outcome", "REASON=retry|fail|succeed"),
    }
    lines = _Lines(sys.stdin.buffer) if submission.file == _STDIN else None
    try:
        return BatchQueue().submit(
            lines or submission.file,
            model=submission.model,
            **options,
        )
    except InvalidRequest as error:
        if lines is not None:
            lines.correct(error)
        name = submission.file if lines is None else "standard input"
        raise CommandError(str(error) if error.source else f"{name}: {error}") from error
    except InvalidBatch as error:
        place, _, problem = str(error).partition(": ")
        name, _, entry = place.partition(".")
        if name not in _WORDS and name not in submission.options:
            raise
        hint = _WORDS.get(name) or f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{entry}: {problem}" if entry else problem, param_hint=hint) from error


class _Lines:
    """The requests in a stream of lines. It remembers the empty lines, so that an error names the right line."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self._gaps = [(0, 0)]
        """Pairs of a request's position and the number of empty lines before it, one for each change."""

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        for ordinal, (number, item) in enumerate(json_lines(self._lines)):
            if number - ordinal > self._gaps[-1][1]:
                self._gaps.append((ordinal, number - ordinal))
            yield item

    def correct(self, error: InvalidRequest) -> None:
        """Changes the position of a request in an error to that of its line. A line that is not JSON has it already."""
        if error.field != "line":
            error.position += self._gaps[bisect_right(self._gaps, error.position, key=itemgetter(0)) - 1][1]


def _pairs(given: list[str], option: str, form: str) -> dict[str, str]:
    pairs = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair!r} is not {form}", param_hint=option)
        pairs[name] = value
    return pairs
