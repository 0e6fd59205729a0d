"""`lowtide results`: finds a batch, and writes its results to a file or to standard output."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import typer

from lowtide import Batch
from lowtide.text import printable
from lowtide_cli.batches import find
from lowtide_cli.commands.results.formats import Format, formatted
from lowtide_cli.terminal import CommandError, Exit, exit_of
from lowtide_cli.terminal.output import quiet_json, stderr

_STDOUT = Path("-")


def results(batch_id: str, output: Path | None, form: str) -> Exit:
    """Writes the results of a batch to a file, or to standard output."""
    if form not in set(Format):
        raise typer.BadParameter(f"{form!r} is not one of {', '.join(Format)}", param_hint="--format")
    batch = find(batch_id)
    status = batch.status()
    if not status.finished:
        stderr().print(
            f"partial: batch {batch.id} is {status.state}, {status.settled:,} of {status.total:,} requests are done",
            soft_wrap=True,
        )
    write_results(batch, output or _STDOUT, Format(form))
    return exit_of(status)


def write_results(batch: Batch, output: Path, form: Format = Format.JSONL) -> None:
    """Streams the stored results to a file, which gets its name when it is complete, or to standard output."""
    if output == _STDOUT:
        # A file or another program gets the bytes unchanged.
        shown = bytes if not sys.stdout.isatty() else quiet_json if form in (Format.JSONL, Format.OPENAI) else _shown
        for line in formatted(batch, batch.summary(), form):
            sys.stdout.buffer.write(shown(line))
        sys.stdout.buffer.flush()
        return
    with complete_file(output) as file:
        count = 0
        for line in formatted(batch, batch.summary(), form):
            file.write(line)
            count += 1
    if form is Format.CSV:
        count -= 1  # the header
    stderr().print(f"{count:,} results in {output}", soft_wrap=True, markup=False)


def _shown(line: bytes) -> bytes:
    """The line with a mark in place of each character that a terminal acts on."""
    return printable(line.decode(errors="replace").removesuffix("\r\n")).encode() + b"\n" * line.endswith(b"\r\n")


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
