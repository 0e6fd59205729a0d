"""Everything an emulator holds, whatever API is in front of it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec import Raw

from lowtide_emulator.answers import Answer, Answerer, CannedModel, RowError, UserModel
from lowtide_emulator.clock import Clock
from lowtide_emulator.embeddings import VectorModel
from lowtide_emulator.faults import FaultPlan
from lowtide_emulator.files import FileStore
from lowtide_emulator.job_store import JobStore
from lowtide_emulator.jobs import Failure, Job
from lowtide_emulator.output import StoppedError, write_results
from lowtide_emulator.rows import FileShape, InlineShape
from lowtide_emulator.settings import Settings
from lowtide_emulator.stats import Stats
from lowtide_emulator.text_model import TextModel
from lowtide_emulator.wire import timestamp


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The emulator's own record of a job; jobs are never forgotten, not even deleted ones.

    name: the resource name; those of Vertex AI begin with ``projects/``.
    state: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED or EXPIRED, with Vertex AI also CANCELLING
        and PARTIALLY_SUCCEEDED; faults of reporting aside.
    requests: rows asked for.
    billed: rows with a success response in a job that delivers results, once it is over.
    created: seconds since the epoch of the emulated clock.
    live: the job is not over; a deleted job may be live.
    keys: the key of each row, in input order (only when asked for).
    billed_keys: the keys of the billed rows (only when asked for).
    """

    name: str
    display_name: str
    model: str
    state: str
    requests: int
    billed: int
    created: float
    ended: float | None
    deleted: bool
    live: bool
    embeddings: bool
    source: str | None
    keys: list[str] | None = None
    billed_keys: list[str] | None = None


class Engine:
    """Settings, clock, stats, faults, files, jobs and the threads that answer rows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.stats = Stats()
        self.faults = FaultPlan()
        self.answer: Answer | None = None
        self.canned: dict[str, Raw | RowError] = {}
        self._seen: Counter[str] = Counter()
        self._temporary = settings.data_dir is None
        self.folder = settings.data_dir or Path(tempfile.mkdtemp(prefix="lowtide-emulator-"))
        self.jobs_folder = self.folder / "jobs"
        self.jobs_folder.mkdir(parents=True, exist_ok=True)
        self.files = FileStore(settings, self.clock, self.folder / "files")
        self.jobs = JobStore()
        self._at_close: list[Callable[[], None]] = []
        self._threads = ThreadPoolExecutor(settings.answer_threads, thread_name_prefix="lowtide-emulator-answers")

    def start(self, job: Job) -> None:
        """Keep a new job and begin to answer its rows, if anybody will ever see the results."""
        self.jobs.add(job)
        if job.rows_delivered:
            self.submit(lambda: self._answer_rows(job))
        else:
            job.input_path.unlink(missing_ok=True)

    def submit(self, work: Callable[[], None]) -> None:
        """Have work done by the answering threads. Raises RuntimeError once the engine is closed."""
        self._threads.submit(work)

    def at_close(self, callback: Callable[[], None]) -> None:
        """Call this before the threads end."""
        self._at_close.append(callback)

    def records(self, *, keys: bool = False) -> list[JobRecord]:
        """Return the record of every job ever created, oldest first."""
        return [self._record(job, keys=keys) for job in self.jobs]

    def reset(self) -> None:
        """Forget jobs, files, faults and counts, and return to real time; settings stay."""
        self.jobs.clear()
        self.files.clear()
        self.faults.replace([])
        self.stats.reset()
        self.clock.reset()
        self._seen.clear()
        for leftover in self.jobs_folder.iterdir():
            leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all work and remove what was written, if the folder is the emulator's own.

        The records of the jobs stay, without their keys.
        """
        self.jobs.stop()
        for callback in self._at_close:
            callback()
        self.files.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def answerer(self, job: Job) -> Answerer:
        """Return who answers the rows of a job."""
        model: Answerer
        if self.answer is not None:
            model = UserModel(self.answer)
        elif job.embeddings:
            model = VectorModel(self.settings.embedding_dimensions)
        else:
            name = job.model.removeprefix("models/").removeprefix("publishers/google/models/")
            model = TextModel(name, self._seen, stamp=self._stamp if job.exports else None)
        return CannedModel(self.canned, model) if self.canned else model

    def _stamp(self) -> str:
        return timestamp(self.clock.now(), digits=6)

    def _answer_rows(self, job: Job) -> None:
        began = time.thread_time()
        progress = job.progress
        try:
            shape = InlineShape() if job.inline else FileShape()
            write_results(job, self.answerer(job), shape)
            progress.ready_at = self.clock.now()
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's error must show in the job
            if not progress.stop:
                progress.failure = Failure(13, f"{type(error).__name__}: {error}", self.clock.now())
                sys.stderr.write(f"lowtide-emulator: job {job.id}: {progress.failure.message}\n")
        finally:
            job.input_path.unlink(missing_ok=True)
            if job.deleted_at is not None or job.cancelled_at is not None:
                job.output_path.unlink(missing_ok=True)
            self.stats.answered(progress.answered, time.thread_time() - began)

    def _record(self, job: Job, *, keys: bool) -> JobRecord:
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
            state=moment.state.value,
            requests=job.requests,
            billed=billed,
            created=job.created,
            ended=moment.ended,
            deleted=job.deleted_at is not None,
            live=not moment.state.is_terminal,
            embeddings=job.embeddings,
            source=job.source,
            keys=names,
            billed_keys=billed_names,
        )
