"""The crash points of the workers' source, each with the scenario that leads there."""

from __future__ import annotations

import re
from pathlib import Path

import lowtide_worker
from lowtide.protocol import Stage

_SOURCE = Path(lowtide_worker.__file__).parent
_SHARING = {
    "batches that share jobs": (
        "submit.after-begin",
        "submit.before-draft",
        "submit.before-plan",
        "submit.after-plan",
        "create.after-call",
        "deliver.before-grant",
        "deliver.after-grant",
        "deliver.before-record",
        "deliver.after-record:2",
        "deliver.after-hand-over",
        "settle.after-count",
        "settle.after-close:2",
    ),
    "a deleted batch that shared a job": ("delete.after-files", "delete.after-record", "delete.after-record:3"),
    "a batch that shared a job is cancelled": (
        "settle.after-begin",
        "settle.after-rest-written",
        "settle.after-rest-segments",
        "deliver.after-grant",
        "settle.after-close",
    ),
}
"""Points at which a kill leaves something half done where batches share jobs."""
_SCENARIO_OF = {
    "create.before-divide": "a job beyond the quota",
    "create.after-divide": "a job beyond the quota",
    "create.before-narrow": "a batch is cancelled whose shared job waits",
    "create.after-narrow": "a batch is cancelled whose shared job waits",
    "deliver.before-partial": "answers in parts",
    "deliver.after-partial": "answers in parts",
    "settle.before-index": "answers in parts",
    "settle.after-index": "answers in parts",
    "arrivals.before-add": "a request that arrives by a list of Redis",
    "arrivals.after-add": "a request that arrives by a list of Redis",
    "gather.before-advance": "a request whose file is away",
    "gather.after-advance": "a request whose file is away",
    "submit.after-seal": "batches that share jobs",
    "submit.after-bundle": "batches that share jobs",
    "inbox.before-files": "a batch in the inbox",
    "inbox.before-record": "a batch in the inbox",
    "inbox.after-record": "a batch in the inbox",
    "inbox.before-refusal": "a batch in the inbox that is corrected",
    "settle.after-rest-written": "rows that end without an answer",
    "settle.after-rest-segments": "rows that end without an answer",
    "reconcile.after-list": "a create without reply",
    "reconcile.after-twin-removed": "two creates without reply",
    "poll.after-cancel": "a cancelled batch",
    "sweep.after-begin": "a twin that shows late",
    "sweep.after-store": "a twin that shows late",
    "sweep.before-advance": "a twin that shows late",
    "sweep.after-advance": "a twin that shows late",
    "submit.before-advance": "a spool that fails",
    "submit.after-advance": "a spool that fails",
    "collect.before-advance": "an output that is gone",
    "collect.after-advance": "an output that is gone",
    "deliver.before-advance": "a handler that cannot be reached",
    "deliver.after-advance": "a handler that cannot be reached",
    "settle.before-advance": "a cancel while segments wait",
    "settle.after-advance": "a cancel while segments wait",
    "delete.before-advance": "a batch that cannot be deleted",
    "delete.after-advance": "a batch that cannot be deleted",
}
_AGAIN = {
    # Also the second time, when another job or segment is half done; and without a file.
    "plain": (
        "create.after-call:2",
        "create.after-input-recorded:2",
        "poll.after-release:3",
        "collect.after-segments:2",
        "deliver.after-grant:2",
        "deliver.after-record:2",
        "deliver.after-hand-over:2",
        "settle.after-close:2",
        "clean.after-job-deleted:2",
    ),
    "an output in pieces": (
        "collect.before-output-complete",
        "collect.after-piece-complete",
        "collect.after-piece-complete:2",
        "collect.after-segments",
        "collect.after-segments:2",
    ),
    "two creates without reply": ("reconcile.after-list:2",),
    # The requests of the second job join the retry job of the first; then the third is closed.
    "stragglers of several jobs": (
        "settle.after-index:2",
        "settle.before-close:2",
        "settle.after-close",
        "settle.after-close:2",
        "settle.after-close:3",
        "create.after-begin:4",
        "create.after-call:4",
    ),
    # The job that goes on, and the one after it.
    "answers in parts": (
        "create.before-upload:2",
        "create.after-call:2",
        "deliver.after-grant:2",
        "deliver.after-partial:2",
        "deliver.after-record:2",
        "settle.after-index:2",
        "settle.after-close",
        "settle.after-close:2",
    ),
    "answers in parts, inline": ("create.before-call:2", "settle.after-index"),
    "inline": ("create.before-call", "create.after-call", "collect.before-output-complete", "deliver.before-record"),
}


_ON_VERTEX = (
    "create.after-upload",
    "create.after-input-recorded",
    "create.before-call",
    "create.after-call",
    "poll.after-release",
    "collect.before-download",
    "collect.after-segments",
    "deliver.before-grant",
    "deliver.after-record",
    "settle.after-close",
    "clean.after-job-deleted",
    "clean.after-input-deleted",
)


def crash_points() -> set[str]:
    """Every name that the workers' source may reach."""
    names: set[str] = set()
    for path in _SOURCE.rglob("*.py"):
        source = path.read_text()
        names |= set(re.findall(r'\breach\("([a-z.-]+)"\)', source))
        suffixes = re.findall(r'\breach\(f"\{stage\.name\.lower\(\)\}\.([a-z-]+)"\)', source)
        names |= {f"{stage.name.lower()}.{suffix}" for stage in Stage for suffix in suffixes}
    return names


def scenario_of(point: str) -> str:
    """The scenario that leads to a crash point."""
    if point.startswith("gather."):
        return _SCENARIO_OF.get(point, "requests that are added one by one")
    return _SCENARIO_OF.get(point) or ("a deleted batch" if point.startswith("delete.") else "plain")


def cases() -> list[tuple[str, str]]:
    """Each crash point with its scenario."""
    return [(scenario_of(point), point) for point in sorted(crash_points())]


def sharing() -> list[tuple[str, str]]:
    """Those of batches that share jobs."""
    return [(scenario, point) for scenario, points in _SHARING.items() for point in points]


def again() -> list[tuple[str, str]]:
    """Some of them once more: the second time, when another job or segment is half done; and otherwise."""
    return [(scenario, point) for scenario, points in _AGAIN.items() for point in points]


def vertex_cases() -> list[tuple[str, str]]:
    """Those at which the other provider has something else to lose: its own files, and output that is read in place."""
    plain = [("plain", point) for point in _ON_VERTEX]
    shared = [("batches that share jobs", point) for point in ("submit.before-plan", "deliver.after-grant")]
    return [
        *plain,
        *shared,
        *(("answers in parts", point) for point in ("deliver.after-partial", "settle.after-index:2")),
    ]
