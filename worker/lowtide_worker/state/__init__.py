"""The state machine in Redis: the clock, the ledger, deliveries, admission, and repairs."""

from __future__ import annotations

from lowtide_worker.state.admission import (
    Admission,
    Admitted,
    BudgetSpentError,
    JobBudget,
    JobTokens,
    UnknownPriceError,
)
from lowtide_worker.state.bundles import BundledBatch, Bundles, Share
from lowtide_worker.state.clock import Clock, Dispatch
from lowtide_worker.state.deleted import DeletedBatches
from lowtide_worker.state.deliveries import Deliveries
from lowtide_worker.state.grants import STRANGER_BYTES, Granted, SegmentRows
from lowtide_worker.state.held import (
    BatchMove,
    Done,
    EventMove,
    Held,
    HeldBatch,
    HeldEvent,
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
from lowtide_worker.state.hooks import Hooks
from lowtide_worker.state.jobs import segments_of_jobs, unknown_jobs
from lowtide_worker.state.leases import Leases
from lowtide_worker.state.ledger import Ledger, UnbalancedError
from lowtide_worker.state.oddities import Oddities
from lowtide_worker.state.ordinals import Ordinals, divided, parted
from lowtide_worker.state.restart import restart_collect
from lowtide_worker.state.retries import OutdatedError, Retry, Unstored
from lowtide_worker.state.standstill import note_standstill
from lowtide_worker.state.tally import BundledTally, DailyCost, Tally

__all__ = [
    "STRANGER_BYTES",
    "Admission",
    "Admitted",
    "BatchMove",
    "BudgetSpentError",
    "BundledBatch",
    "BundledTally",
    "Bundles",
    "Clock",
    "DailyCost",
    "DeletedBatches",
    "Deliveries",
    "Dispatch",
    "Done",
    "EventMove",
    "Granted",
    "Held",
    "HeldBatch",
    "HeldEvent",
    "HeldJob",
    "HeldSegment",
    "HeldSweep",
    "Hooks",
    "JobBudget",
    "JobMove",
    "JobTokens",
    "Lease",
    "Leases",
    "Ledger",
    "Move",
    "NotHeld",
    "Oddities",
    "Ordinals",
    "OutdatedError",
    "Retry",
    "SegmentMove",
    "SegmentRows",
    "Share",
    "Superseded",
    "SweepMove",
    "Tally",
    "UnbalancedError",
    "UnknownPriceError",
    "Unstored",
    "bounded",
    "divided",
    "known",
    "note_standstill",
    "parted",
    "restart_collect",
    "segments_of_jobs",
    "unknown_jobs",
]
