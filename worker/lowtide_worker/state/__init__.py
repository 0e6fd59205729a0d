"""The state machine in Redis: the clock, the ledger, deliveries, admission, and repairs."""

from __future__ import annotations

from lowtide_worker.state.admission import Admission
from lowtide_worker.state.clock import Clock, Dispatch, Done, Fields, Held, Move, Superseded
from lowtide_worker.state.deliveries import Deliveries
from lowtide_worker.state.leases import Leases
from lowtide_worker.state.ledger import Ledger, encoded_error
from lowtide_worker.state.oddities import Oddities
from lowtide_worker.state.ordinals import Rows

__all__ = [
    "Admission",
    "Clock",
    "Deliveries",
    "Dispatch",
    "Done",
    "Fields",
    "Held",
    "Leases",
    "Ledger",
    "Move",
    "Oddities",
    "Rows",
    "Superseded",
    "encoded_error",
]
