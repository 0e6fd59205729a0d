"""The files of a stack's spool, and the drafts that processes leave there when they are killed."""

from __future__ import annotations

from functools import lru_cache

from tests.chaos.chaos_stack import ChaosStack
from tests.waiting import wait_until

from lowtide.spool import Spool
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.orphans import FileAges, drafts


def files_in(stack: ChaosStack, folder: str) -> list[str]:
    """The names of the files under a folder; "" for the whole spool, or all batches where it is in a bucket."""
    if "://" in (url := stack.env["LOWTIDE_SPOOL_URL"]):
        return _bucket(url).names(folder or "batches")
    root = stack.directory / "spool"
    return [str(path.relative_to(root)) for path in (root / folder).rglob("*") if path.is_file()]


@lru_cache(maxsize=1)
def _bucket(url: str) -> Spool:
    """The spool in a bucket. A check asks for many folders: each new client would have ten seconds for an answer."""
    return Spool(url)


def check_drafts(stack: ChaosStack, *, allowed: bool) -> None:
    """No draft is left where nothing was killed. Else the sweep removes those outside the folders of batches."""
    # Those of jobs go with the working files.
    left = [name for name in files_in(stack, "") if name.endswith(".part") and "/jobs/" not in name]
    assert allowed or not left, f"drafts left in the spool: {left}"
    if all(name.startswith("batches/") for name in left):
        return
    runtime = Runtime(stack.worker_settings(orphan_seconds=0.1))

    def swept() -> bool:
        drafts(runtime, FileAges(runtime), lambda: None)
        return all(name.startswith("batches/") for name in files_in(stack, "") if name.endswith(".part"))

    wait_until(swept, what=f"the sweep has removed what is outside the folders of batches of {left}")
