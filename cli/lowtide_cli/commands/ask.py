"""`lowtide ask`: adds one request, and waits for its answer."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from lowtide import BatchQueue, InvalidBatch, InvalidRequest, SingleOptions
from lowtide_cli.commands.ticket import answered, told
from lowtide_cli.terminal import CommandError, Exit
from lowtide_cli.terminal.output import print_json
from lowtide_cli.terminal.streams import standard_input

_STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The request, as given on the command line."""

    prompt: str
    model: str
    key: str | None
    options: SingleOptions


def ask(question: Question, *, wait: bool, timeout: float | None, as_json: bool) -> Exit:
    """Adds a request; prints its answer, or with `wait` False its ticket. `timeout` is in seconds."""
    prompt = _standard_input() if question.prompt == _STDIN else question.prompt
    if not prompt.strip():
        raise CommandError("the prompt is empty; give a text, or - and the text on standard input")
    try:
        ticket = BatchQueue().add({"contents": prompt}, model=question.model, key=question.key, **question.options)
    except InvalidRequest as error:
        raise CommandError(f"{error.field}: {error.reason}") from error
    except InvalidBatch as error:
        name, _, problem = str(error).partition(": ")
        if name not in {"model", *question.options}:
            raise
        raise typer.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}") from error
    if not wait:
        if as_json:
            print_json({"ticket": ticket.id}, indent=0)
        else:
            typer.echo(ticket.id)
        return Exit.OK
    status = answered(ticket, timeout)
    return Exit.INTERRUPTED if status is None else told(status, as_json=as_json)


def _standard_input() -> str:
    try:
        return standard_input("the prompt").read().decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"standard input is not UTF-8: byte {error.start}") from error
