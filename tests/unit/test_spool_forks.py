"""A spool in an object store: before and after a fork (gunicorn's preload, Celery's prefork pool), and its errors."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from lowtide.errors import SpoolError
from lowtide.spool import Spool


class Store(AsyncFileSystem):
    """An object store like those of gcsfs and s3fs: what it does, it does on fsspec's thread."""

    protocol = "forked"

    async def _cat_file(self, path: str, **_: Any) -> bytes:
        return bytes(_known(path).read_bytes())

    async def _pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        _known(path).write_bytes(value)

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(_known(path).read_bytes()), "type": "file"}


def _known(path: str) -> Path:
    if path.endswith("refused"):
        raise LookupError("401: who are you?")  # like gcsfs, whose errors of HTTP are no OSErrors
    return Path(path)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    fsspec.register_implementation("forked", Store, clobber=True)
    return Spool(f"forked://{tmp_path}")


def in_a_child(action: Callable[[], bool]) -> bool:
    """Whether an action is true in a forked process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        right = False
        try:
            right = action()
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("used", [False, True], ids=["unused before", "used before"])
def test_a_spool_in_an_object_store_serves_in_processes_forked_later(spool: Spool, used: bool) -> None:
    if used:
        spool.create("before", b"1")

    def use() -> bool:
        return spool.create("x", b"child") and spool.read("x") == b"child" and spool.size("x") == 5

    assert in_a_child(use)
    assert in_a_child(lambda: in_a_child(use))
    assert spool.read("x") == b"child"


def test_threads_of_a_forked_process_share_its_file_system(spool: Spool) -> None:
    before = spool._fs

    assert in_a_child(lambda: spool._fs is spool._fs and spool._fs is not before)
    assert spool._fs is before


def test_an_error_of_an_object_stores_library_is_one_of_the_spool_whatever_its_kind(spool: Spool) -> None:
    for use in (spool.read, spool.exists, spool.size, spool.names, spool.folders):
        with pytest.raises(SpoolError, match="who are you"):
            use("refused")
    assert not spool.exists("nothing")
