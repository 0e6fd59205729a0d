"""Lowtide: a job queue for batch inference on Gemini.

`BatchQueue.submit` takes requests in; Celery workers (`lowtide_worker`) turn them into provider jobs, wait
for hours or days, and give every request's one result back, to a handler and to `Batch.results`.
"""

from __future__ import annotations

from lowtide.aio import AsyncBatch, AsyncBatchQueue
from lowtide.batch import Batch
from lowtide.errors import (
    BatchNotFinished,
    BatchNotFound,
    DeadLetterNotFound,
    IdempotencyConflict,
    InstallationMismatch,
    InvalidBatch,
    InvalidRequest,
    LowtideError,
    SourceError,
    SpoolError,
    StoreUnavailable,
    UnsupportedServer,
    WaitTimeout,
)
from lowtide.handling.celery_handler import result_handler
from lowtide.models import BatchPage, BatchStatus, JobStatus, Request, Result, ResultError, Usage
from lowtide.queue import BatchQueue
from lowtide.settings import Settings
from lowtide.states import BatchState, JobState, Kind, Mode, ProviderName, ResultStatus, Verdict
from lowtide.store import DeadLetter, DeadLetters

__all__ = [
    "AsyncBatch",
    "AsyncBatchQueue",
    "Batch",
    "BatchNotFinished",
    "BatchNotFound",
    "BatchPage",
    "BatchQueue",
    "BatchState",
    "BatchStatus",
    "DeadLetter",
    "DeadLetterNotFound",
    "DeadLetters",
    "IdempotencyConflict",
    "InstallationMismatch",
    "InvalidBatch",
    "InvalidRequest",
    "JobState",
    "JobStatus",
    "Kind",
    "LowtideError",
    "Mode",
    "ProviderName",
    "Request",
    "Result",
    "ResultError",
    "ResultStatus",
    "Settings",
    "SourceError",
    "SpoolError",
    "StoreUnavailable",
    "UnsupportedServer",
    "Usage",
    "Verdict",
    "WaitTimeout",
    "result_handler",
]
