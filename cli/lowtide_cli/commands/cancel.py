"""`lowtide cancel`: asks a batch to stop."""

from __future__ import annotations

from lowtide_cli.batches import find
from lowtide_cli.commands.watch import follow
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.output import outcome, stderr


def cancel(batch_id: str, *, wait: bool) -> Exit:
    """Asks a batch to stop, and waits until it has stopped if `wait` is true."""
    batch = find(batch_id)
    status = batch.status()
    if status.finished:
        stderr().print(f"{batch.id} is {status.state} already: {outcome(status)}", soft_wrap=True)
        return Exit.OK
    batch.cancel()
    if wait:
        return Exit.OK if follow(batch, on_stderr=True) else Exit.INTERRUPTED
    stderr().print(f"{batch.id} was asked to stop; its results so far are kept", soft_wrap=True)
    return Exit.OK
