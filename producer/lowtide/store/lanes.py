"""Lanes: which small batches may share provider jobs.

The batches of a lane have equal options in all that a job, or the treatment of its rows, depends on. While a bundle is
open for a lane, its batches are added to it; the workers then cut the bundle into jobs as they do with a large batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from lowtide.options import Options
from lowtide.protocol import RECORD_VERSION, Stage
from lowtide.protocol.changes import NewBundle
from lowtide.settings import Settings
from lowtide.states import BatchState, ProviderName


def lane_of(options: Options, settings: Settings, *, total: int, sources: Sequence[object]) -> str:
    """The name of the lane of a batch of `total` requests; "" where it gets jobs of its own.

    A large batch needs no company. Requests that the provider reads in place, and output in a user's own place, belong
    to one batch. On Vertex AI, whether requests may share a file is known only within a batch.
    """
    alone = sources or options.destination is not None or options.provider is not ProviderName.GEMINI
    if not options.share or alone or total >= settings.linger_requests:
        return ""
    return hashlib.blake2b(msgspec.json.encode(new_bundle(options), order="deterministic"), digest_size=16).hexdigest()


def new_bundle(options: Options) -> NewBundle:
    """The fields of a new bundle for batches of these options."""
    return {
        "v": RECORD_VERSION,
        "state": BatchState.PENDING,
        "stage": Stage.SUBMIT,
        "token": 0,
        "busy": False,
        "model": options.model,
        "provider": options.provider,
        "mode": options.mode,
        "kind": options.kind,
        "groups": 1,
        "max_attempts": options.max_attempts,
        "priority": options.priority,
        "on_result": options.on_result,
        "outcomes": dict(options.outcomes),
        "cancel": False,
        "jobs": 0,
        "open": 0,
    }
