"""The note of a running `lowtide up` in its data folder, for a second one that is started there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lowtide.text import on_one_line
from lowtide_cli.local import PAGES, Stack, private_file

_NAME = "running.json"


@contextmanager
def noted(stack: Stack) -> Iterator[None]:
    """Keeps the note in the folder of a stack that has started. Only one has an embedded Redis there."""
    if stack.redis is None:
        yield
        return
    note = stack.shape.directory / _NAME
    pages = {"Redis": f"127.0.0.1:{stack.redis.port}", "emulator": stack.emulator_url}
    pages |= {"batches": f"{stack.flower_url}{PAGES}" if stack.flower_url else None}
    private_file(note, json.dumps({"pid": os.getpid(), "pages": {name: url for name, url in pages.items() if url}}))
    # The number of a process that was killed may be another one's by now. A lock ends with its process.
    lock = os.open(note, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        os.close(lock)


def running(directory: Path) -> str:
    """Returns what runs on the data in a folder, and how to stop it; empty where no note of a live process is there."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        with (directory / _NAME).open(encoding="utf-8") as file:
            if not _is_locked(file.fileno()):
                return ""
            note = json.load(file)
        pid = int(note["pid"])
        pages = ", ".join(f"{name} {url}" for name, url in note["pages"].items())
        return on_one_line(
            f"`lowtide up` already runs on the data in {directory}: pid {pid}, {pages}. Stop it by Ctrl-C in its "
            f"terminal or `kill {pid}`"
        )
    return ""


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
