"""`Batch`: reads the status and the results of one batch, and ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial

from lowtide.budgets import nano_dollars
from lowtide.errors import BatchNotFinished, InvalidBatch, SpoolError, StoreUnavailable, WaitTimeout
from lowtide.lookup import ResultFinder
from lowtide.models import REQUESTS_LOST, BatchStatus, Result, read_result
from lowtide.protocol import BatchFiles, keys
from lowtide.spool import Spool
from lowtide.states import BatchState
from lowtide.store import AsyncNotified, Notified, Store

_RUNNING = frozenset({BatchState.PENDING, BatchState.RUNNING, BatchState.CANCELLING})
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
        self._finder = ResultFinder(batch_id, store, spool)

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def status(self, *, max_jobs: int | None = None) -> BatchStatus:
        """Returns the counts, state, jobs and tokens now. Raises `BatchNotFound` once the batch is deleted.

        - `max_jobs`: the most jobs to read, so that a batch of thousands is read quickly; None: all. Where there are
          more, `jobs` has some of each state, and the problems of jobs are about these.
        """
        return self._store.status(self.id, max_jobs)

    def summary(self) -> BatchStatus:
        """Returns the status without the jobs, which may be thousands, in one quick read.

        Its problems are those of the batch; those of jobs, and of workers that do not run, take `status`. Raises
        `BatchNotFound`.
        """
        return self._store.summary(self.id)

    def wait(self, timeout: float | None = None) -> BatchStatus:
        """Blocks until the batch is finished; returns its final status.

        Redis notifies it of the end, so any number of threads can wait: those of one `BatchQueue` share a connection.
        Redis may be unreachable for a minute meanwhile.

        - `timeout`: the longest wait, in seconds; None: no limit.

        Raises `WaitTimeout` after the timeout, while the batch continues to run, and `BatchNotFound`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if self.summary().finished:
            return self.status()
        with self.notifications() as notified:
            while notified.wait(deadline - time.monotonic()) or time.monotonic() < deadline:
                if (status := final_status(self, notified.state)) is not None:
                    return status
        status = self.summary()
        raise WaitTimeout(
            f"batch {self.id} is {status.state} with {status.settled} of {status.total} "
            f"requests done after {timeout:g} s"
        )

    def notifications(self) -> AbstractContextManager[Notified]:
        """Returns a context manager that subscribes a thread to the changes of the batch: see `Notified`."""
        return self._store.notifications.of(keys.changed(self.id), keys.batch(self.id))

    def async_notifications(self) -> AbstractContextManager[AsyncNotified]:
        """Returns a context manager that subscribes a task to the changes of the batch: see `AsyncNotified`."""
        return self._store.notifications.of_async(keys.changed(self.id), keys.batch(self.id))

    def results(self) -> Iterator[Result]:
        """Yields the results that are stored now, one at a time, in no particular order.

        All of them are stored once the batch is finished: call `wait` first. Of a batch that still runs it yields those
        of the jobs that have ended, or none, and ends without an error: `status` says whether it is finished.

        Raises `InstallationMismatch` where the spool is not the workers'. Where the batch is finished and results are
        missing, raises `SpoolError` with the files' names, after the results that exist. Of a batch that ended
        with `REQUESTS_LOST`, results are missing without an error.
        """
        status = self.summary()
        yield from map(partial(read_result, batch_id=self.id, labels=status.labels), self._lines(status))

    def result(self, key: str) -> Result:
        """Returns the stored result of one request, in a few reads however large the batch is.

        The first call for a batch of more than 5,000 requests reads all keys, and leaves an index of them in the spool.

        - `key`: the request's key.

        Raises `KeyNotFound` where the batch has no such request, `ResultNotReady` where it has no result yet,
        `InstallationMismatch` where the spool is not the workers', and `SpoolError` where the result is missing there.

        Example::

            print(batch.result("mug-12").text)
        """
        return self._finder.result(key)

    def result_lines(self) -> Iterator[bytes]:
        """Yields the same results as JSON lines, without decoding them. Raises as `results` does."""
        yield from self._lines(self.summary())

    def result_line(self, key: str) -> bytes:
        """Returns the result of one request as a JSON line, without decoding it. Raises as `result` does."""
        return self._finder.line(key)

    def _lines(self, status: BatchStatus) -> Iterator[bytes]:
        self._store.confirm(self._store.installation(self._spool))
        found, names = 0, [*filter(self._files.segment_of, self._spool.names(self._files.results))]
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

    def set_max_cost(self, max_cost: Decimal | float | str) -> None:
        """Changes the most that the batch may cost, in US dollars, and returns at once. Jobs that wait for it go on.

        A job that runs already is not stopped. Requests that have failed with `BUDGET` stay failed: submit with
        `over_budget="wait"` where more may be granted later. Raises `InvalidBatch` for an amount that cannot be used,
        and for a batch that was submitted without a `max_cost`; `BatchNotFound`.
        """
        try:
            self._store.money.set_max_cost(self.id, nano_dollars(max_cost))
        except ValueError as error:
            raise InvalidBatch(f"max_cost: {error}") from None

    def delete(self) -> None:
        """Asks for a finished batch and its files to be removed, here and at the provider, and returns at once.

        The workers remove it; until then its state is `deleting`. Raises `BatchNotFinished` for a batch that runs, and
        `BatchNotFound`.
        """
        state = self._store.delete(self.id)
        if not state.finished and state is not BatchState.DELETING:
            first = "wait until it is cancelled" if state is BatchState.CANCELLING else "cancel it and wait"
            raise BatchNotFinished(f"batch {self.id} is {state}: {first} before deleting it")


def final_status(batch: Batch, state: str) -> BatchStatus | None:
    """Returns the final status of a batch if a notification of this state may be that of its end, else None.

    Raises `StoreUnavailable` only where the state is not known: after any other one, more notifications follow.
    """
    if state in _RUNNING:
        return None
    try:
        status = batch.status()
    except StoreUnavailable:
        if state:
            return None
        raise
    return status if status.finished else None
