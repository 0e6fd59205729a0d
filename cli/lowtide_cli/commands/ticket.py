"""`lowtide ticket`: the state of one request that was added by itself, and its answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from lowtide import BatchNotFound, BatchQueue, Result, ResultStatus, Ticket, TicketStatus, WaitTimeout
from lowtide.text import on_one_line, printable
from lowtide_cli.terminal import Exit, exit_of_result
from lowtide_cli.terminal.output import busy, print_json, stderr, tokens_text


def show_ticket(ticket_id: str, *, wait: bool, timeout: float | None, as_json: bool) -> Exit:
    """Prints the state of a ticket, and its answer. With `wait` it waits for that, at most `timeout` seconds."""
    ticket = BatchQueue().ticket(ticket_id)
    status = answered(ticket, timeout) if wait or timeout is not None else ticket.status()
    return Exit.INTERRUPTED if status is None else told(status, as_json=as_json)


def answered(ticket: Ticket, timeout: float | None) -> TicketStatus | None:
    """Names a ticket and waits for its answer; returns None where the user pressed Ctrl-C. Raises `WaitTimeout`."""
    screen = stderr()
    told_before: list[str] = []
    try:
        # Standard output is for the answer alone.
        typer.echo(f"ticket {ticket.id}", err=True)
        told_before = _tell_problems(ticket.status())
        with busy("waiting for the answer; Ctrl-C stops waiting"):
            ticket.result(timeout)
    except KeyboardInterrupt:
        screen.print(f"the request continues: lowtide ticket {ticket.id} --wait", soft_wrap=True, markup=False)
        return None
    except WaitTimeout:
        _tell_problems(ticket.status(), but=told_before)
        raise
    return ticket.status()


def told(status: TicketStatus, *, as_json: bool) -> Exit:
    """Prints a ticket: its answer on standard output, all else on standard error. Returns the exit code.

    A request that failed has no answer, although the provider may have replied: `--json` shows that.
    """
    result = status.result
    if as_json:
        print_json(
            {"ticket": status.id, "state": status.state, "batch_id": status.batch_id, "result": result}, indent=0
        )
    else:
        facts = [str(result.status) if result else str(status.state), f"batch {status.batch_id}"]
        if result and result.usage and (tokens := tokens_text(result.usage)):
            facts.append(f"tokens {tokens}")
        if result and result.error:
            facts.append(on_one_line(f"{result.error.reason}: {result.error.message}"))
        stderr().print("; ".join(facts), soft_wrap=True, markup=False)
        if result is None:
            _tell_problems(status)
        if result and result.status is ResultStatus.SUCCEEDED:
            _print_answer(result)
    return Exit.OK if result is None else exit_of_result(result.status)


def _tell_problems(status: TicketStatus, *, but: Sequence[str] = ()) -> list[str]:
    """Prints why a request that is not done makes no progress, such as that no worker runs; returns that.

    - `but`: what is not printed again.
    """
    if status.result is not None:
        return []
    try:
        found = BatchQueue().get(status.batch_id).status().problems
    except BatchNotFound:
        return []
    for problem in found:
        if problem not in but:
            stderr().print(f"problem: {on_one_line(problem)}", soft_wrap=True, markup=False)
    return found


def _print_answer(result: Result) -> None:
    """Prints the text of an answer; the whole response as JSON where it has no text."""
    text = result.text
    if text is None:
        print_json(result.response)
        return
    if sys.stdout.isatty():
        text = printable(text)
    sys.stdout.buffer.write(text.removesuffix("\n").encode(errors="replace") + b"\n")
    sys.stdout.buffer.flush()
