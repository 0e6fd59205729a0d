"""Puts many small blobs at once, so that they wait for the disk, or for the object store, together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_THREADS = 8
"""A journal takes the syncs of about so many files with one write. More threads only contend for Python."""
_MOST_PENDING = 64
"""Blobs in memory at once, of a MiB each at most."""


class ParallelPuts:
    """Calls `put` in several threads, in any order: a name may be put once only.

    It is a context manager. At its end all blobs are written, or the first error is raised.
    """

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self._put = put
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lowtide-put")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def put(self, name: str, data: bytes) -> None:
        """Begins to write a blob; raises the error of an earlier one."""
        if len(self._pending) >= _MOST_PENDING:
            half = self._pending[: _MOST_PENDING // 2]
            del self._pending[: len(half)]
            for earlier in half:
                earlier.result()
        self._pending.append(self._pool.submit(self._put, name, data))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # All of them, so that none is written after the caller has removed what is there.
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for each in self._pending:
                each.result()
