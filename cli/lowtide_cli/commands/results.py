"""`lowtide results`: the stored results of a batch, streamed as JSON lines."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lowtide import Batch
from lowtide_cli.batches import find
from lowtide_cli.terminal import CommandError, Exit, exit_of
from lowtide_cli.terminal.output import quiet_json, stderr

_STDOUT = Path("-")


def results(batch_id: str, output: Path | None) -> Exit:
    """Writes the results of a batch to a file, or to standard output."""
    batch = find(batch_id)
    status = batch.status()
    if not status.finished:
        stderr().print(
            f"partial: batch {batch.id} is {status.state}, {status.settled:,} of {status.total:,} requests are done",
            soft_wrap=True,
        )
    write_results(batch, output or _STDOUT)
    return exit_of(status)


def write_results(batch: Batch, output: Path) -> None:
    """Streams the stored results to a file, which gets its name when it is complete, or to standard output."""
    if output == _STDOUT:
        # A file or another program gets the stored bytes unchanged.
        shown = quiet_json if sys.stdout.isatty() else bytes
        for line in batch.result_lines():
            sys.stdout.buffer.write(shown(line) + b"\n")
        sys.stdout.buffer.flush()
        return
    with complete_file(output) as file:
        count = 0
        for line in batch.result_lines():
            file.write(line + b"\n")
            count += 1
    stderr().print(f"{count:,} results in {output}", soft_wrap=True, markup=False)


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name, or replaces an older file, when the block ends without an error."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = draft.open("xb")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CommandError(f"{path}: {error.strerror}") from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
