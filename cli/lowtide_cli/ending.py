"""`lowtide cancel` and `lowtide delete`: how a batch is ended, and how it goes."""

from __future__ import annotations

import sys
import time

import typer

from lowtide import Batch, BatchNotFound
from lowtide_cli.batches import find
from lowtide_cli.errors import CommandError
from lowtide_cli.exits import Exit
from lowtide_cli.output import outcome, stderr
from lowtide_cli.watch import follow
from lowtide_cli.workers import worker_queues

_LOOK_SECONDS = 0.2


def cancel(batch_id: str, *, wait: bool) -> Exit:
    """Asks a batch to stop."""
    batch = find(batch_id)
    status = batch.status()
    if status.finished:
        stderr().print(f"{batch.id} is {status.state} already: {outcome(status)}", soft_wrap=True)
        return Exit.OK
    batch.cancel()
    if wait:
        return Exit.OK if follow(batch, on_stderr=True) else Exit.INTERRUPTED
    stderr().print(f"{batch.id} is asked to stop; what is done already is kept", soft_wrap=True)
    return Exit.OK


def delete(batch_id: str, *, yes: bool, timeout: float) -> Exit:
    """Deletes a finished batch and waits until the workers have done it."""
    batch = find(batch_id)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on: add --yes", param_hint="--yes")
        typer.confirm(f"Delete {batch.id}, its results too, here and at the provider?", abort=True, err=True)
    batch.delete()
    try:
        gone = _gone_within(batch, timeout)
    except KeyboardInterrupt:
        stderr().print(f"\nno longer waiting; the workers delete {batch.id}", soft_wrap=True)
        return Exit.INTERRUPTED
    if not gone:
        raise CommandError(_why_not(batch, timeout))
    stderr().print(f"{batch.id} is deleted", soft_wrap=True)
    return Exit.OK


def _gone_within(batch: Batch, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while True:
        try:
            batch.status()
        except BatchNotFound:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)


def _why_not(batch: Batch, timeout: float) -> str:
    waited = f"{batch.id} is marked for deletion, but not gone after {timeout:g} s"
    if not worker_queues():
        return f"{waited}: no worker seems to run. Start one; it will do it"
    return f"{waited}: the workers are busy or the provider does not answer. They keep trying; see their logs"
