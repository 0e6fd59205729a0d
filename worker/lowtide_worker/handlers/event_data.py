"""The data of a batch event, as webhooks and streams get it: about the batch, and without results."""

from __future__ import annotations

from typing import Any

import msgspec

from lowtide.models import ResultError, Usage
from lowtide.protocol import BatchFiles
from lowtide.states import BatchState, Kind, ProviderName
from lowtide_worker.handlers.protocol import BatchEvent


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of `BatchStatus`, under its names, and the place of the results. What is not known is left out."""

    batch_id: str
    labels: dict[str, str]
    state: BatchState
    model: str
    provider: ProviderName
    kind: Kind
    total: int
    succeeded: int
    failed: int
    expired: int
    cancelled: int
    answered: int
    usage: Usage
    discarded_usage: Usage
    cost: int | None = None
    paid_cost: int | None = None
    unpriced: int = 0
    reasons: dict[str, int]
    created_at: float
    attempt: int
    finished_at: float | None = None
    error: ResultError | None = None
    destination: str | None = None
    results: str
    """The folder of the results in the spool."""
    shared_results: list[tuple[str, int, int]] = []
    """Files of a bundle with more of them: name in the spool, first byte, byte behind the last."""


def event_data(event: BatchEvent) -> EventData:
    """Returns the data of a batch event."""
    status = msgspec.structs.asdict(event.status)
    shown: dict[str, Any] = {name: value for name, value in status.items() if name in EventData.__struct_fields__}
    return EventData(
        **shown,
        batch_id=event.status.id,
        attempt=event.attempt,
        results=BatchFiles(event.status.id).results,
        shared_results=list(event.shared_results),
    )
