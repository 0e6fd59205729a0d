"""Lowtide: a job queue for batch inference on Gemini.

`BatchQueue.submit` records a batch of requests. Celery workers (`lowtide_worker`) create the provider's jobs for it,
wait for hours or days, and return one result for each request, to a handler and in `Batch.results`.

Example::

    from lowtide import BatchQueue, Request

    batch = BatchQueue().submit([Request(key="a", contents="Why is the sea salty?")], model="gemini-3.5-flash")
    batch.wait()
    print([result.text for result in batch.results()])
"""

from __future__ import annotations

from lowtide.aio import AsyncBatch, AsyncBatchQueue
from lowtide.async_tickets import AsyncTicket
from lowtide.batch import Batch
from lowtide.budgets import Shortage
from lowtide.errors import (
    BatchNotFinished,
    BatchNotFound,
    DeadLetterNotFound,
    IdempotencyConflict,
    InstallationMismatch,
    InvalidBatch,
    InvalidRequest,
    InvalidSettings,
    KeyNotFound,
    LowtideError,
    QueueFull,
    ResultNotReady,
    ResultsFailed,
    SourceError,
    SpoolError,
    StoreUnavailable,
    TicketNotFound,
    UnsupportedServer,
    WaitTimeout,
)
from lowtide.estimates import Estimate
from lowtide.handling.batch_handler import batch_handler
from lowtide.handling.celery_handler import result_handler
from lowtide.intake import BatchSubmission
from lowtide.models import BatchPage, BatchStatus, JobStatus, Request, Result, ResultError, Usage, Waiting
from lowtide.options import BatchOptions
from lowtide.queue import BatchQueue
from lowtide.settings import Settings
from lowtide.single_options import SingleOptions
from lowtide.states import (
    Awaited,
    BatchState,
    JobState,
    Kind,
    Mode,
    OverBudget,
    ProviderName,
    ResultStatus,
    TicketState,
    Verdict,
)
from lowtide.store import DeadLetter, DeadLetters
from lowtide.tickets import Ticket, TicketStatus

__all__ = [
    "AsyncBatch",
    "AsyncBatchQueue",
    "AsyncTicket",
    "Awaited",
    "Batch",
    "BatchNotFinished",
    "BatchNotFound",
    "BatchOptions",
    "BatchPage",
    "BatchQueue",
    "BatchState",
    "BatchStatus",
    "BatchSubmission",
    "DeadLetter",
    "DeadLetterNotFound",
    "DeadLetters",
    "Estimate",
    "IdempotencyConflict",
    "InstallationMismatch",
    "InvalidBatch",
    "InvalidRequest",
    "InvalidSettings",
    "JobState",
    "JobStatus",
    "KeyNotFound",
    "Kind",
    "LowtideError",
    "Mode",
    "OverBudget",
    "ProviderName",
    "QueueFull",
    "Request",
    "Result",
    "ResultError",
    "ResultNotReady",
    "ResultStatus",
    "ResultsFailed",
    "Settings",
    "Shortage",
    "SingleOptions",
    "SourceError",
    "SpoolError",
    "StoreUnavailable",
    "Ticket",
    "TicketNotFound",
    "TicketState",
    "TicketStatus",
    "UnsupportedServer",
    "Usage",
    "Verdict",
    "WaitTimeout",
    "Waiting",
    "batch_handler",
    "result_handler",
]
