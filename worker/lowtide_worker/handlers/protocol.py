"""What a handler is to deliver: something that takes a segment of stored results, at least once."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Delivery(NamedTuple):
    """One delivery: a reference to stored results, never the results themselves."""

    batch_id: str
    delivery_id: str
    """Stable: the same segment has the same id however often it comes."""
    results: str
    """Name in the spool of the segment's results, one JSON object a line."""
    attempt: int
    """1 for the first try."""
    only: list[int] | None
    """Line numbers (0-based) still to be handled; None for all."""


class HandlerFailed(Exception):
    """The handler did not take the segment; it is tried again later."""


class NoListener(Exception):
    """There is nobody to give the segment to, which is no failure of the handler: it waits until there is."""

    def __init__(self, listens_as: str, problem: str) -> None:
        super().__init__(problem)
        self.listens_as = listens_as
        """The name under which its workers would say that they listen."""


class Handler(Protocol):
    """Takes segments. Raises `HandlerFailed` or `NoListener`."""

    answers: bool
    """Whether it says later that it has taken a segment; otherwise a segment is taken when `hand_over` returns."""

    def hand_over(self, delivery: Delivery) -> str | None:
        """Gives one segment to whoever wants it; returns the queue it was put into, if it was."""
