"""The parts of an emulator that both APIs share, and the records of its jobs."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import (
    Answer,
    Answerer,
    CannedModel,
    RowError,
    RuledModel,
    TextModel,
    UserModel,
    VectorModel,
)
from lowtide_emulator.engine.bill import Tokens, flat, nested
from lowtide_emulator.engine.clock import Clock
from lowtide_emulator.engine.job_store import JobStore
from lowtide_emulator.engine.jobs import Job
from lowtide_emulator.engine.models import AnsweringModels
from lowtide_emulator.engine.quotas import Quotas
from lowtide_emulator.engine.stats import Stats, StatsSnapshot
from lowtide_emulator.faults import FaultPlan
from lowtide_emulator.settings import Settings


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The emulator's own record of a job. Records of deleted jobs stay.

    name: the resource name; those of Vertex AI begin with `projects/`.
    state: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED or EXPIRED, for Vertex AI also CANCELLING
        and PARTIALLY_SUCCEEDED. Faults that make a job report another state do not change it.
    model: the model that was asked for, as the API names it.
    answered_by: the model that answers and is billed, without a prefix.
    requests: the number of rows in the input.
    billed: the number of rows with a successful response, in a finished job that delivers results.
    billed_tokens: the tokens of these rows by model, kind (`prompt`, `candidates`, ...) and modality.
    created: the time of creation on the emulated clock, in seconds since the epoch.
    ended: the end of the job on the same clock; None before.
    live: whether the job is unfinished; a deleted job may be live.
    source: the name of the input; None for inline rows.
    keys: the key of each row, in input order; None unless they were requested.
    billed_keys: the keys of the billed rows; None unless they were requested.
    """

    name: str
    display_name: str
    model: str
    answered_by: str
    state: str
    requests: int
    billed: int
    billed_tokens: Tokens
    created: float
    ended: float | None
    deleted: bool
    live: bool
    embeddings: bool
    source: str | None
    keys: list[str] | None = None
    billed_keys: list[str] | None = None


class Engine:
    """The settings, clock, counters, faults and jobs of an emulator, and the threads that answer rows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.jobs = JobStore()
        self.quotas = Quotas(settings, self.jobs, self.clock)
        self.stats = Stats()
        self.faults = FaultPlan()
        self.models = AnsweringModels(settings.answer_as)
        self.answer: Answer | None = None
        self.canned: dict[str, Raw | RowError] = {}
        self._seen: Counter[str] = Counter()
        self._temporary = settings.data_dir is None
        self.folder = settings.data_dir or Path(tempfile.mkdtemp(prefix="lowtide-emulator-"))
        self.jobs_folder = self.folder / "jobs"
        self.jobs_folder.mkdir(parents=True, exist_ok=True)
        self._at_reset: list[Callable[[], None]] = []
        self._at_close: list[Callable[[], None]] = []
        self._threads = ThreadPoolExecutor(settings.answer_threads, thread_name_prefix="lowtide-emulator-answers")

    def submit(self, work: Callable[[], None]) -> None:
        """Runs a function in one of the answering threads. Raises RuntimeError if the engine is closed."""
        self._threads.submit(work)

    def at_reset(self, callback: Callable[[], None]) -> None:
        """Registers a function that every reset calls, after it has removed the jobs."""
        self._at_reset.append(callback)

    def at_close(self, callback: Callable[[], None]) -> None:
        """Registers a function that `close` calls before it ends the threads."""
        self._at_close.append(callback)

    def records(self, *, keys: bool = False) -> list[JobRecord]:
        """Returns the record of every job ever created, oldest first."""
        return [self.record(job, keys=keys) for job in self.jobs]

    def snapshot(self) -> StatsSnapshot:
        """Returns the present counters."""
        now = self.clock.now()
        billed: Counter[str] = Counter()
        tokens: Counter[tuple[str, str, str]] = Counter()
        for job in self.jobs:
            billed[job.answered_by] += job.billed(now)
            tokens.update(flat(job.billed_tokens(now)))
        return self.stats.snapshot(
            billed=dict(+billed),
            billed_tokens=nested(tokens),
            enqueued_tokens=self.quotas.enqueued(),
            spent=self.quotas.spent(),
        )

    def reset(self) -> None:
        """Removes jobs, files, fault rules and counters, and resets the clock; settings stay."""
        self.jobs.clear()
        for callback in self._at_reset:
            callback()
        self.faults.replace([])
        self.models.reset()
        self.stats.reset()
        self.clock.reset()
        self._seen.clear()
        for leftover in self.jobs_folder.iterdir():
            leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Stops all work, and removes the folder if it is a temporary one.

        The records of the jobs stay, without their keys.
        """
        self.jobs.stop()
        for callback in self._at_close:
            callback()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def answerer(self, job: Job, stamp: Callable[[], str] | None = None) -> Answerer:
        """Returns the model that answers the rows of a job.

        stamp: returns the time as answers report it; None if they do not report it.
        """
        answerer: Answerer
        if self.answer is not None:
            answerer = UserModel(self.answer)
        elif job.embeddings:
            answerer = VectorModel(self.settings.embedding_dimensions)
        else:
            answerer = TextModel(job.answered_by, self._seen, stamp=stamp)
        if not job.embeddings:
            answerer = RuledModel(answerer)
        return CannedModel(self.canned, answerer) if self.canned else answerer

    def record(self, job: Job, *, keys: bool = False) -> JobRecord:
        """Returns the record of a job."""
        now = self.clock.now()
        moment = job.at(now)
        billed = job.billed(now)
        names = billed_names = None
        if keys:
            names = job.keys()
            failed = set(job.progress.failed)
            answered = names[: job.ending.rows] if billed else []
            billed_names = [name for index, name in enumerate(answered) if index not in failed]
        return JobRecord(
            name=job.name,
            display_name=job.display_name,
            model=job.model,
            answered_by=job.answered_by,
            state=moment.state.value,
            requests=job.requests,
            billed=billed,
            billed_tokens=job.billed_tokens(now),
            created=job.created,
            ended=moment.ended,
            deleted=job.deleted_at is not None,
            live=not moment.state.is_terminal,
            embeddings=job.embeddings,
            source=job.source,
            keys=names,
            billed_keys=billed_names,
        )
