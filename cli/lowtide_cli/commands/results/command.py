"""`lowtide results`: finds a batch, and writes its results to a file or to standard output."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import typer

from lowtide import Batch, BatchStatus
from lowtide.models import read_result
from lowtide.text import counted
from lowtide_cli.batches import find
from lowtide_cli.commands.results.formats import Format, formatted
from lowtide_cli.terminal import CommandError, Exit, exit_of, exit_of_result
from lowtide_cli.terminal.output import quiet_json, quiet_line, stderr

_STDOUT = Path("-")


def results(batch_id: str, output: Path | None, form: str, *, key: str | None = None) -> Exit:
    """Writes the results of a batch, or that of one key, to a file, or to standard output."""
    if form not in set(Format):
        raise typer.BadParameter(f"{form!r} is not one of {', '.join(Format)}", param_hint="--format")
    if output is not None:
        check_output(output)
    batch = find(batch_id)
    if key is not None:
        return _one_result(batch, key, output or _STDOUT, Format(form))
    status = batch.status()
    if not status.finished:
        stderr().print(
            f"partial: batch {batch.id} is {status.state}, {status.settled:,} of {status.total:,} requests are done",
            soft_wrap=True,
        )
    write_results(batch, output or _STDOUT, Format(form))
    return exit_of(status)


def _one_result(batch: Batch, key: str, output: Path, form: Format) -> Exit:
    line = batch.result_line(key)
    _write([line], batch.summary(), output, form)
    return exit_of_result(read_result(line).status)


def check_output(output: Path) -> None:
    """Raises `CommandError` where no file of this name can be written, before anything is done for its content."""
    if output == _STDOUT:
        return
    target = Path(os.path.realpath(output))
    if target.exists() and not target.is_file() and not target.is_dir():
        return  # a pipe or a device, which is written to directly
    folder = target.parent if output.is_symlink() else output.parent
    if not folder.is_dir():
        raise CommandError(f"{output}: there is no folder {folder}: make it, or choose another file")
    if output.is_dir():
        raise CommandError(f"{output} is a folder: write the name of a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{output}: no file can be made in {folder}: choose another file")


def write_results(batch: Batch, output: Path, form: Format = Format.JSONL) -> None:
    """Streams the stored results to a file, which gets its name when it is complete, or to standard output."""
    _write(batch.result_lines(), batch.summary(), output, form)


def _write(lines: Iterable[bytes], status: BatchStatus, output: Path, form: Format) -> None:
    if output == _STDOUT:
        # A file or another program gets the bytes unchanged.
        shown = (
            bytes if not sys.stdout.isatty() else quiet_json if form in (Format.JSONL, Format.OPENAI) else quiet_line
        )
        for line in formatted(lines, status, form):
            sys.stdout.buffer.write(shown(line))
        sys.stdout.buffer.flush()
        return
    with complete_file(output) as file:
        count = 0
        for line in formatted(lines, status, form):
            file.write(line)
            count += 1
    if form is Format.CSV:
        count -= 1  # the header
    stderr().print(f"{counted(count, 'result')} in {output}", soft_wrap=True, markup=False)


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name, or replaces an older file, when the block ends without an error.

    A symbolic link stays, and its target is replaced. What is no regular file, such as a pipe, is written to directly.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file = draft.open("xb")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CommandError(f"{path}: {error.strerror}") from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
