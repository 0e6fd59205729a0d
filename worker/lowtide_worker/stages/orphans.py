"""The part of the sweep for files outside the folders of batches: what processes that died have left there.

A draft is what a process has written of a file when it dies. One in the folder of a batch goes with the batch: to list
all of them would take as long as the spool is large, and each death leaves no more than a few for each thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import PurePosixPath

from lowtide.protocol import BATCH_ID, PROBES, SINGLES
from lowtide.spool import CLOCK, MARKER
from lowtide_worker.runtime import Runtime

_SINGLE = re.compile(rf"{SINGLES}/{BATCH_ID.pattern}\.json", re.ASCII)
_PROBE = re.compile(rf"{PROBES}/[0-9a-f]{{16}}", re.ASCII)
_REFUSAL = re.compile(rf"inbox/{BATCH_ID.pattern}/error\.json", re.ASCII)


class FileAges:
    """Decides which files are old enough to be left over. The time is that of the first question."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @cached_property
    def _now(self) -> float:
        # Not by this host's clock alone: a file's time is that of its storage.
        return min(self._runtime.spool.now(), self._runtime.clock.now())

    def is_old(self, modified: float) -> bool:
        """Whether something that was written at this time, in Unix seconds, is older than `orphan_seconds`."""
        return self._now - modified > self._runtime.settings.orphan_seconds


def single_files(runtime: Runtime, ages: FileAges, keep: Callable[[], None]) -> int:
    """Deletes files of large singles that wait no more: they were gathered, or their producer died before they were
    recorded."""
    removed = 0
    for name in runtime.spool.names(SINGLES):
        keep()
        with runtime.oddities.apart("files", name):
            if not _SINGLE.fullmatch(name) or not ages.is_old(runtime.spool.modified(name)):
                continue
            runtime.installation.check()
            if not runtime.singles.refers_to(PurePosixPath(name).stem):
                runtime.spool.delete(name)
                removed += 1
    return removed


def drafts(runtime: Runtime, ages: FileAges, keep: Callable[[], None]) -> int:
    """Deletes drafts of processes that died, and probes of `lowtide doctor`."""
    removed = 0
    for name, modified in [*_drafts(runtime), *_probes(runtime)]:
        keep()
        with runtime.oddities.apart("files", name):
            if ages.is_old(modified):
                runtime.installation.check()
                runtime.spool.delete(name)
                removed += 1
    return removed


def _drafts(runtime: Runtime) -> Iterator[tuple[str, float]]:
    """Yields the drafts outside the folders of batches that are of Lowtide's own files, with their times."""
    inboxes = list[str]()
    with runtime.oddities.apart("files", "inbox"):
        inboxes = [f"inbox/{name}" for name in runtime.spool.folders("inbox") if BATCH_ID.fullmatch(name)]
    for folder in ("", SINGLES, PROBES, *inboxes):
        with runtime.oddities.apart("files", folder):
            for draft in runtime.spool.drafts(folder):
                if _is_own(draft.blob):
                    yield draft.path, draft.modified


def _probes(runtime: Runtime) -> Iterator[tuple[str, float]]:
    with runtime.oddities.apart("files", PROBES):
        for name in runtime.spool.names(PROBES):
            if _PROBE.fullmatch(name):
                yield name, runtime.spool.modified(name)


def _is_own(blob: str) -> bool:
    """Whether Lowtide writes a file of this name outside the folders of batches."""
    return blob in {MARKER, CLOCK} or any(form.fullmatch(blob) for form in (_SINGLE, _PROBE, _REFUSAL))
