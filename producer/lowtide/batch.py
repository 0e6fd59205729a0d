"""A handle on one batch: where it stands, what came out of it, and how to end it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lowtide.errors import BatchNotFinished, SpoolError, WaitTimeout
from lowtide.models import REQUESTS_LOST, BatchStatus, Result, read_result
from lowtide.protocol import BatchFiles
from lowtide.spool import Spool
from lowtide.states import BatchState
from lowtide.store import Store


class Batch:
    """A batch known to the store. Holds nothing but its id: every call reads afresh."""

    def __init__(self, batch_id: str, store: Store, spool: Spool) -> None:
        self.id = batch_id
        self._store = store
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def status(self) -> BatchStatus:
        """Counts, state, jobs and tokens, now. Raises `BatchNotFound` once it is deleted."""
        return self._store.status(self.id)

    def summary(self) -> BatchStatus:
        """The same without the jobs, which may be thousands: one quick read. Raises `BatchNotFound`."""
        return self._store.summary(self.id)

    def wait(self, timeout: float | None = None, *, poll_seconds: float = 0.5) -> BatchStatus:
        """Blocks until the batch is finished; returns its final status.

        `timeout` in seconds, None for ever. Raises `WaitTimeout`; the batch goes on running.
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
        """The stored results, one at a time, in no particular order: all of them once it is finished.

        Raises `InstallationMismatch` for a spool that is not the workers', and `SpoolError`, after those that are
        there, where the batch is finished and not all are. A batch that ended with `REQUESTS_LOST` has none.
        """
        return map(read_result, self.result_lines())

    def result_lines(self) -> Iterator[bytes]:
        """The same as JSON lines, undecoded."""
        status = self.summary()
        self._store.confirm(self._store.installation(self._spool))
        found = 0
        for name in self._spool.names(self._files.results):
            for line in self._spool.lines(name):
                found += 1
                yield line
        lost = status.error is not None and status.error.reason == REQUESTS_LOST
        if status.finished and not lost and found < status.total:
            raise SpoolError(
                f"{found:,} of {status.total:,} results of batch {self.id} are in the spool; bring "
                f"{self._files.results} back from a backup"
            )

    def cancel(self) -> None:
        """Asks the batch to stop. What is already done is kept, the rest ends as `cancelled`.

        Returns at once; wait for the end with `wait`. A finished batch is left as it is.
        """
        self._store.cancel(self.id)

    def delete(self) -> None:
        """Removes a finished batch and all it left, here and at the provider.

        The workers do it; the batch is `deleting` until then. Raises `BatchNotFinished` for a live one.
        """
        state = self._store.delete(self.id)
        if not state.finished and state is not BatchState.DELETING:
            raise BatchNotFinished(f"batch {self.id} is {state}: cancel it and wait before deleting it")
