"""`Ticket`: the state and the result of one request that was added by itself."""

from __future__ import annotations

import math
import time

import msgspec

from lowtide.errors import SpoolError, TicketNotFound, WaitTimeout
from lowtide.lookup import ResultFinder, not_in_spool
from lowtide.models import REQUESTS_LOST, Result
from lowtide.protocol import TicketId, keys
from lowtide.spool import Spool
from lowtide.states import ResultStatus, TicketState
from lowtide.store import Found, Store


class TicketStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a ticket.

    - `id`: that of the ticket.
    - `state`: waiting, sent or done.
    - `batch_id`: the batch that the request is in.
    - `result`: the result; None until it is there.
    """

    id: str
    state: TicketState
    batch_id: str
    result: Result | None = None


class Ticket:
    """One request, as `BatchQueue.add` and `BatchQueue.ticket` return it.

    It holds only the id: each call reads the present state. Every call may raise `StoreUnavailable`, `SpoolError` and
    `TicketNotFound`: its result is kept for `LOWTIDE_TICKET_SECONDS` after its batch has finished.

    Example::

        ticket = queue.ticket(ticket_id)
        if ticket.status().state == "done":
            print(ticket.result().text)
    """

    def __init__(self, ticket_id: str, store: Store, spool: Spool) -> None:
        try:
            self._parts = TicketId.parse(ticket_id)
        except ValueError as error:
            raise TicketNotFound(str(error)) from None
        self.id = ticket_id
        self._store = store
        self._spool = spool

    def __repr__(self) -> str:
        return f"Ticket({self.id!r})"

    def status(self) -> TicketStatus:
        """Returns the state now, with the result where there is one."""
        found = self._store.singles.find(self._parts)
        try:
            result = self._result(found) if found.state is TicketState.DONE else None
        except SpoolError:
            # Its batch may have been deleted meanwhile.
            self._store.singles.find(self._parts)
            raise
        # Between the decision about a row and its being stored, the request is not done yet.
        state = TicketState.SENT if found.state is TicketState.DONE and result is None else found.state
        return TicketStatus(id=self.id, state=state, batch_id=found.batch.id, result=result)

    def result(self, timeout: float | None = None) -> Result:
        """Blocks until the result is there; returns it. Redis notifies it, so that it need not poll.

        - `timeout`: the longest wait, in seconds; None: no limit.

        Raises `WaitTimeout` after the timeout, while the request continues to run.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        batch_id = self._parts.batch_id
        with self._store.notifications.of(keys.changed(batch_id), keys.batch(batch_id)) as notified:
            while (status := self.status()).result is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(f"ticket {self.id} has no result after {timeout:g} s (state: {status.state})")
                notified.wait(left)
            return status.result

    def _result(self, found: Found) -> Result | None:
        """The result of a request that is settled; None while it is not stored yet."""
        batch = found.batch
        if lost := lost_result(self.id, found):
            return lost
        places = self._store.result_places(batch.id, batch.bundle, [found.ordinal])
        finder = ResultFinder(batch.id, self._store, self._spool)
        result = finder.results(batch, [found.ordinal], places).get(found.ordinal)
        if result is None and batch.finished is not None:
            raise not_in_spool(f"the result of ticket {self.id}", batch.id)
        return result


def lost_result(ticket: str, found: Found) -> Result | None:
    """Returns the result of a ticket whose batch has lost its requests before it was answered; None for another."""
    batch = found.batch
    if found.is_settled or batch.error is None or batch.error.reason != REQUESTS_LOST or batch.finished is None:
        return None
    status = ResultStatus.CANCELLED if batch.cancel else ResultStatus.FAILED
    return Result(key=ticket, status=status, error=batch.error, batch_id=batch.id, labels=batch.labels)
