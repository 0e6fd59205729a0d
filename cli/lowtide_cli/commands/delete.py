"""`lowtide delete`: deletes a finished batch and waits until the workers have done it."""

from __future__ import annotations

import sys
import time

import typer

from lowtide import Batch, BatchNotFound, BatchStatus
from lowtide.text import counted, on_one_line
from lowtide_cli.batches import find
from lowtide_cli.terminal import CommandError, Exit, WrongUsage
from lowtide_cli.terminal.output import stderr
from lowtide_cli.workers import worker_queues

_POLL_SECONDS = 0.2


def delete(batch_id: str, *, yes: bool, timeout: float) -> Exit:
    """Deletes a finished batch.

    - `yes`: do not ask for confirmation.
    - `timeout`: seconds to wait until the workers have deleted it.
    """
    batch = find(batch_id)
    lost = _untaken(batch.summary())
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage("there is no terminal to ask for confirmation: add --yes")
        typer.confirm(f"Delete {batch.id} and its results, here and at the provider{lost}?", abort=True, err=True)
    batch.delete()
    try:
        gone = _gone_within(batch, timeout)
    except KeyboardInterrupt:
        stderr().print(f"\nno longer waiting; the workers delete {batch.id}", soft_wrap=True)
        return Exit.INTERRUPTED
    if not gone:
        raise CommandError(_late(batch, timeout))
    stderr().print(f"{batch.id} is deleted{lost}", soft_wrap=True, markup=False)
    return Exit.OK


def _untaken(status: BatchStatus) -> str:
    """Returns the segments that the handler has not taken, and may never get; empty where it has taken all."""
    count = status.undelivered + status.parked
    of = " of its bundle" if status.bundle else ""
    handler = on_one_line(status.on_result or "its handler")
    return f", with {counted(count, f'segment{of}', f'segments{of}')} that {handler} has not taken" if count else ""


def _gone_within(batch: Batch, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while True:
        try:
            batch.status()
        except BatchNotFound:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)


def _late(batch: Batch, timeout: float) -> str:
    waited = f"{batch.id} is marked for deletion, but not deleted after {timeout:g} s"
    if not worker_queues():
        return f"{waited}: no worker seems to run. Start one, and it will delete the batch"
    return f"{waited}: the workers are busy or the provider does not answer. They keep trying; see their logs"
