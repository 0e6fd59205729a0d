"""`Batch`: reads the status and the results of one batch, and ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from lowtide.errors import BatchNotFinished, SpoolError, WaitTimeout
from lowtide.models import REQUESTS_LOST, BatchStatus, Result, read_result
from lowtide.protocol import BatchFiles
from lowtide.spool import Spool
from lowtide.states import BatchState
from lowtide.store import Store

_MOST_NAMES = 5
"""Most names of missing files in an error."""


class Batch:
    """One batch, as `BatchQueue.submit` and `BatchQueue.get` return it.

    It holds only the id: each call reads the present state. Every call may raise `StoreUnavailable`.

    Example::

        status = batch.wait(timeout=3600)
        print(status.state, status.succeeded, "of", status.total)
        for result in batch.results():
            print(result.key, result.text or result.error)
    """

    def __init__(self, batch_id: str, store: Store, spool: Spool) -> None:
        self.id = batch_id
        self._store = store
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def status(self) -> BatchStatus:
        """Returns the counts, state, jobs and tokens now. Raises `BatchNotFound` once the batch is deleted."""
        return self._store.status(self.id)

    def summary(self) -> BatchStatus:
        """Returns the status without the jobs, which may be thousands, in one quick read. Raises `BatchNotFound`."""
        return self._store.summary(self.id)

    def wait(self, timeout: float | None = None, *, poll_seconds: float = 0.5) -> BatchStatus:
        """Blocks until the batch is finished; returns its final status.

        - `timeout`: the longest wait, in seconds; None: no limit.
        - `poll_seconds`: the pause between two reads of the status, in seconds.

        Raises `WaitTimeout` after the timeout, while the batch continues to run, and `BatchNotFound`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (status := self.summary()).finished:
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"batch {self.id} is {status.state} with {status.settled} of {status.total} "
                    f"requests done after {timeout:g} s"
                )
            time.sleep(poll_seconds)
        return self.status()

    def results(self) -> Iterator[Result]:
        """Yields the stored results, one at a time, in no particular order: all of them once the batch is finished.

        Raises `InstallationMismatch` where the spool is not the workers'. Where the batch is finished and results are
        missing, raises `SpoolError` with the files' names, after the results that exist. A batch that ended with
        `REQUESTS_LOST` has no results.
        """
        status = self.summary()
        yield from map(partial(read_result, batch_id=self.id, labels=status.labels), self._lines(status))

    def result_lines(self) -> Iterator[bytes]:
        """Yields the same results as JSON lines, without decoding them. Raises as `results` does."""
        yield from self._lines(self.summary())

    def _lines(self, status: BatchStatus) -> Iterator[bytes]:
        self._store.confirm(self._store.installation(self._spool))
        found, names = 0, self._spool.names(self._files.results)
        for name in names:
            for line in self._spool.lines(name):
                found += 1
                yield line
        if status.bundle is not None:
            for line in self._shared_lines():
                found += 1
                yield line
        lost = status.error is not None and status.error.reason == REQUESTS_LOST
        if status.finished and not lost and found < status.total:
            missing = [name for name in self._store.result_files(self.id) if name not in names]
            shown = ", ".join(missing[:_MOST_NAMES]) + ("" if len(missing) <= _MOST_NAMES else ", ...")
            raise SpoolError(
                f"only {found:,} of {status.total:,} results of batch {self.id} are in the spool; restore "
                f"{shown or self._files.results} from a backup"
            )

    def _shared_lines(self) -> Iterator[bytes]:
        """The results that are in files of its bundle."""
        for name, start, end in self._store.stored(self.id):
            yield from self._spool.read(name, start, end).removesuffix(b"\n").split(b"\n")

    def cancel(self) -> None:
        """Asks the batch to stop, and returns at once: use `wait` to wait for the end.

        Results that exist are kept; the other requests end as `cancelled`. A finished batch does not change. Raises
        `BatchNotFound`.
        """
        self._store.cancel(self.id)

    def delete(self) -> None:
        """Asks for a finished batch and its files to be removed, here and at the provider, and returns at once.

        The workers remove it; until then its state is `deleting`. Raises `BatchNotFinished` for a batch that runs, and
        `BatchNotFound`.
        """
        state = self._store.delete(self.id)
        if not state.finished and state is not BatchState.DELETING:
            raise BatchNotFinished(f"batch {self.id} is {state}: cancel it and wait before deleting it")
