"""The state machine in Redis: the clock, the ledger, deliveries, admission, and repairs."""

from __future__ import annotations

from lowtide_worker.state.admission import Admission, JobTokens
from lowtide_worker.state.bundles import Bundles, Share
from lowtide_worker.state.clock import Clock, Dispatch
from lowtide_worker.state.deleted import DeletedBatches
from lowtide_worker.state.deliveries import Deliveries
from lowtide_worker.state.held import (
    BatchMove,
    Done,
    Held,
    HeldBatch,
    HeldJob,
    HeldSegment,
    HeldSweep,
    JobMove,
    Lease,
    Move,
    NotHeld,
    SegmentMove,
    Superseded,
    SweepMove,
    bounded,
    known,
)
from lowtide_worker.state.leases import Leases
from lowtide_worker.state.ledger import Ledger, UnbalancedError
from lowtide_worker.state.oddities import Oddities
from lowtide_worker.state.ordinals import Ordinals, divided, parted
from lowtide_worker.state.restart import restart_collect
from lowtide_worker.state.retries import Retry
from lowtide_worker.state.tally import BundledTally, Tally

__all__ = [
    "Admission",
    "BatchMove",
    "BundledTally",
    "Bundles",
    "Clock",
    "DeletedBatches",
    "Deliveries",
    "Dispatch",
    "Done",
    "Held",
    "HeldBatch",
    "HeldJob",
    "HeldSegment",
    "HeldSweep",
    "JobMove",
    "JobTokens",
    "Lease",
    "Leases",
    "Ledger",
    "Move",
    "NotHeld",
    "Oddities",
    "Ordinals",
    "Retry",
    "SegmentMove",
    "Share",
    "Superseded",
    "SweepMove",
    "Tally",
    "UnbalancedError",
    "bounded",
    "divided",
    "known",
    "parted",
    "restart_collect",
]
