"""The protocol of a handler: it takes deliveries of stored results, and batch events, each at least once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from lowtide.models import BatchStatus
from lowtide.tracing import Headers


class Delivery(NamedTuple):
    """One attempt to deliver a segment: a reference to stored results, never the results themselves."""

    batch_id: str
    delivery_id: str
    """The same at every attempt to deliver the segment."""
    results: str
    """The name of the results file in the spool, which has one JSON object a line."""
    attempt: int
    """1 for the first attempt."""
    only: list[int] | None
    """Numbers of the lines still to be handled, from 0; None for all."""
    labels: Mapping[str, str]
    """The batch's labels."""
    trace: Headers = MappingProxyType({})
    """The span that the handler continues, if there is one."""


class BatchEvent(NamedTuple):
    """One attempt to notify a handler of a batch's end, or of its progress."""

    type: str
    """`batch.completed`, `batch.failed`, `batch.expired`, `batch.cancelled` or `batch.progress`."""
    delivery_id: str
    """The same at every attempt."""
    time: float
    """When it happened, in Unix seconds."""
    status: BatchStatus
    """The batch, as it was then."""
    shared_results: Sequence[tuple[str, int, int]]
    """Files of its bundle that have results of it: name in the spool, first byte, byte behind the last."""
    attempt: int
    """1 for the first attempt."""
    trace: Headers = MappingProxyType({})
    """The span that the handler continues, if there is one."""


class HandlerFailed(Exception):
    """The handler did not take a delivery or a batch event; the next attempt comes after a pause."""


class Silent(HandlerFailed):
    """The target did not answer in time."""


class Resting(Exception):
    """The target did not answer a moment ago, so it is not asked now. That costs no try."""


class NoListener(Exception):
    """No worker listens for the handler. That is no failure of the handler: the delivery waits until one does."""

    def __init__(self, listens_as: str, problem: str) -> None:
        super().__init__(problem)
        self.listens_as = listens_as
        """The name under which the handler's workers register."""


class Handler(Protocol):
    """A way to give deliveries and batch events to a target that a batch names."""

    answers: bool
    """Whether the target reports later that it has taken a delivery. Otherwise `hand_over` returns when it has."""

    def hand_over(self, delivery: Delivery) -> str | None:
        """Gives one delivery to the target; returns the queue into which it was put, if there is one.

        Raises `HandlerFailed` or `NoListener`.
        """

    def notify(self, event: BatchEvent) -> str | None:
        """Gives one batch event to the target. Returns and raises as `hand_over` does, and `Resting`."""
