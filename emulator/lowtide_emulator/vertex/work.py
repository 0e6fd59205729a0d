"""The work on batch prediction jobs: import, answer, export.

Rows are answered at once, before the job runs on the emulated clock, and the answers are kept here. At the end of the
job they are exported, and the job is finished when the export is. The number of exported rows is known only then,
because a job can be cancelled or expire. A move of the emulated clock wakes nothing, so a thread checks all unfinished
jobs every few milliseconds.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec

from lowtide_emulator.answering import Answerer
from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine import (
    BUFFER,
    Engine,
    Failure,
    StoppedError,
    answered_lines,
    damaged_lines,
    foreign_lines,
    write_lines,
)
from lowtide_emulator.extras import install
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.big_query import BigQuery
from lowtide_emulator.vertex.cloud_storage import CloudStorage
from lowtide_emulator.vertex.datasets import Datasets
from lowtide_emulator.vertex.export import INCREMENTAL_ROWS, export_objects, export_table, reverse_lines
from lowtide_emulator.vertex.failures import JobFailed
from lowtide_emulator.vertex.intake import load_objects, load_table
from lowtide_emulator.vertex.jobs import BigQueryOutput, GcsOutput, Phase, PredictionJob
from lowtide_emulator.vertex.rows import CheckedModel, PredictionShape
from lowtide_emulator.vertex.wire import processed_time
from lowtide_emulator.wire import VERTEX_TYPES, RequestChecker, timestamp

TICK = 0.02


class VertexWork:
    """Does the work on all batch prediction jobs of an engine."""

    def __init__(self, engine: Engine, datasets: Datasets) -> None:
        self._engine = engine
        self._datasets = datasets
        self._lock = threading.Lock()
        self._jobs: list[PredictionJob] = []
        self._answerers: dict[str, tuple[Answerer, PredictionShape]] = {}
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        engine.at_close(self.close)

    # The servers

    def storage_url(self) -> str | None:
        """Returns the URL of the Cloud Storage server; None if there is none."""
        return self._engine.settings.storage_url or os.environ.get("STORAGE_EMULATOR_HOST")

    def bigquery_url(self) -> str | None:
        """Returns the URL of the BigQuery server; None if there is none."""
        return self._engine.settings.bigquery_url or os.environ.get("BIGQUERY_EMULATOR_HOST")

    def check_servers(self, job: PredictionJob) -> None:
        """Refuses a job whose servers or client libraries are missing; the message says how to get them."""
        needs_tables = isinstance(job.output, BigQueryOutput) or not job.uris[0].startswith("gs://")
        needs_objects = isinstance(job.output, GcsOutput) or job.uris[0].startswith("gs://")
        for needed, what, url, option, client in (
            (needs_objects, "Cloud Storage", self.storage_url(), "storage", "google.cloud.storage"),
            (needs_tables, "BigQuery", self.bigquery_url(), "bigquery", "google.cloud.bigquery"),
        ):
            if needed and not url:
                raise RefusalError(
                    400,
                    f"This emulator has no {what}: give it the URL of a running server with --{option}-url or "
                    f"LOWTIDE_EMULATOR_{option.upper()}_URL. Stand-ins need: {install('vertex-emulator')}",
                    "FAILED_PRECONDITION",
                )
            if needed and not _installed(client):
                raise RefusalError(
                    501, f"Jobs on {what} need an extra that is not installed: {install('vertex-emulator')}"
                )

    def _storage(self) -> CloudStorage:
        return CloudStorage(_with_scheme(self.storage_url() or ""))

    def _bigquery(self) -> BigQuery:
        return BigQuery(_with_scheme(self.bigquery_url() or ""))

    # The steps of a job

    def start(self, job: PredictionJob) -> None:
        """Adds a new job and starts to work on it."""
        self._engine.jobs.add(job)
        with self._lock:
            self._jobs.append(job)
            if self._watcher is None:
                # Not a daemon: `close` ends the thread, and a test must notice if nothing calls it.
                self._watcher = threading.Thread(target=self._watch, name="lowtide-emulator-vertex")
                self._watcher.start()
        self._submit(job, self._answer)

    def write_source(self, job: PredictionJob, data: bytes) -> None:
        """Writes the rows of a seed where its job reads them. Raises JobFailed."""
        job.input_path.write_bytes(data)
        with self._storage() as storage:
            storage.check_bucket(job.uris[0])
            storage.upload(job.input_path, job.uris[0])

    def settle(self, job: PredictionJob) -> None:
        """Returns when all work on a seed's job is done that its state needs, at the time that the seed gives."""
        while job.phase is not Phase.DONE and not (
            job.phase is Phase.WAITING and self._engine.clock.now() < job.ending.at
        ):
            if self._closed.wait(TICK):
                return
        if job.progress.ready_at is not None:
            job.progress.ready_at = min(job.progress.ready_at, job.ending.at)

    def proceed(self, job: PredictionJob) -> None:
        """Starts the next step of a job, if one is due."""
        now = self._engine.clock.now()
        with self._lock:
            work = self._next_step(job, now)
            if work is None:
                return
            job.phase = Phase.EXPORTING
        self._submit(job, work)

    def _next_step(self, job: PredictionJob, now: float) -> Callable[[PredictionJob], None] | None:
        if job.phase is not Phase.WAITING:
            return None
        ending = job.ending
        if now < ending.at:
            if not job.incremental and now > job.starts and isinstance(job.output, GcsOutput):
                return self._export_so_far
            return None
        if job.export_again_at is not None and now >= job.export_again_at:
            return self._export_again
        if job.progress.ready_at is None or (job.delivered_at is None and job.results_due(now)):
            return self._deliver
        return None

    def _watch(self) -> None:
        while not self._closed.wait(TICK):
            with self._lock:
                self._jobs = [job for job in self._jobs if not self._is_done(job)]
                jobs = list(self._jobs)
                if not jobs:
                    self._watcher = None
                    return
            for job in jobs:
                self.proceed(job)

    def _is_done(self, job: PredictionJob) -> bool:
        if job.phase is not Phase.DONE and (job.phase is not Phase.WAITING or not job.progress.stop):
            return False
        self._clean(job)
        return True

    def close(self) -> None:
        """Ends the thread that checks jobs."""
        self._closed.set()
        watcher = self._watcher
        if watcher is not None:
            watcher.join()

    def _submit(self, job: PredictionJob, work: Callable[[PredictionJob], None]) -> None:
        def run() -> None:
            try:
                if job.progress.stop:
                    raise StoppedError  # noqa: TRY301 - as if the job had stopped at its first row
                work(job)
            except StoppedError:
                job.phase = Phase.DONE
            except JobFailed as failed:
                self._fail(job, failed.code, failed.message)
            except Exception as error:  # noqa: BLE001 - a thread's error must show in the job
                if not job.progress.stop:
                    sys.stderr.write(f"lowtide-emulator: job {job.id}: {type(error).__name__}: {error}\n")
                self._fail(job, 13, f"Internal error encountered: {type(error).__name__}: {error}")
            if job.phase is Phase.DONE:
                self._clean(job)

        try:
            self._engine.submit(run)
        except RuntimeError:
            # The engine is closed.
            job.phase = Phase.DONE

    def _fail(self, job: PredictionJob, code: int, message: str) -> None:
        job.progress.failure = Failure(code, message, self._engine.clock.now())
        job.phase = Phase.DONE

    def _answer(self, job: PredictionJob) -> None:
        began = time.thread_time()
        try:
            self._import(job)
            layout, clock = job.layout, self._engine.clock
            shape = PredictionShape(job.key_field, layout, lambda: processed_time(clock.now()))
            model = self._engine.answerer(job, self._stamp)
            answerer = CheckedModel(_checker(embeddings=job.embeddings), model)
            self._answerers[job.id] = answerer, shape
            with (
                job.input_path.open("rb", buffering=BUFFER) as source,
                job.answered_path.open("wb", buffering=BUFFER) as out,
            ):
                if job.results is None:
                    out.writelines(answered_lines(job, answerer, shape, source))
                else:
                    out.writelines(job.results)
        finally:
            job.input_path.unlink(missing_ok=True)
            self._engine.stats.answered(job.progress.answered, time.thread_time() - began)
        job.progress.answered_at = self._engine.clock.now()
        job.phase = Phase.WAITING
        self.proceed(job)

    def _stamp(self) -> str:
        return timestamp(self._engine.clock.now(), digits=6)

    def _import(self, job: PredictionJob) -> None:
        settings = self._engine.settings
        fails = job.fault(kinds.ImportFails)
        if isinstance(job.output, GcsOutput):
            with self._storage() as storage:
                storage.check_bucket(job.output.folder)
        else:
            with self._bigquery() as bigquery:
                bigquery.check_dataset(job.output.table)
        limit = settings.vertex_max_embeddings if job.embeddings else settings.vertex_max_requests
        if not job.uris[0].startswith("gs://"):
            table, column = self._table(job.uris[0])
            with self._bigquery() as bigquery:
                load_table(job, bigquery, table, column, max_rows=limit)
        else:
            with self._storage() as storage:
                load_objects(job, storage, max_bytes=settings.vertex_max_file_bytes, max_rows=limit)
        if fails is not None:
            raise JobFailed(3, f"Failed to import data from {job.uris[0]}: {fails.reason}")

    def _table(self, source: str) -> tuple[str, str]:
        """Returns the table of a source, and its column with the requests. Raises JobFailed."""
        if source.startswith("bq://"):
            return source, "request"
        try:
            dataset = self._datasets.find(source)
        except RefusalError as gone:
            raise JobFailed(5, f"Failed to import data from {source}: it does not exist") from gone
        if dataset.column is None:
            raise JobFailed(12, f"Failed to import data from {source}: the emulator has no templates of datasets")
        return dataset.table, dataset.column

    def _export_so_far(self, job: PredictionJob) -> None:
        """Exports the rows that a running job has done so far."""
        self._write_so_far(job, job.done_by(self._engine.clock.now()))
        job.phase = Phase.WAITING

    def _write_so_far(self, job: PredictionJob, rows: int) -> None:
        job.incremental = True
        if not isinstance(job.output, GcsOutput) or rows == 0:
            return
        path = job.output_path.with_suffix(".incremental")
        try:
            with job.answered_path.open("rb", buffering=BUFFER) as lines, path.open("wb") as out:
                out.writelines(itertools.islice(lines, min(rows, INCREMENTAL_ROWS)))
            with self._storage() as storage:
                storage.upload(path, f"{job.output.folder}/incremental_predictions.jsonl")
        finally:
            path.unlink(missing_ok=True)

    def _deliver(self, job: PredictionJob) -> None:
        """Exports the results of a job and finishes it."""
        now = self._engine.clock.now()
        rows = job.ending.rows
        if job.results_due(now):
            if not job.incremental:
                self._write_so_far(job, (rows + 1) // 2)
            self._write_results(job, rows)
            late = job.fault(kinds.LateOutput)
            self._export(job, fraction=1.0 if late is None else late.fraction)
            job.delivered_at = self._engine.clock.now()
            more = late or job.fault(kinds.RewrittenOutput)
            if more is not None:
                job.export_again_at = job.delivered_at + more.seconds
        missing = job.fault(kinds.NoOutput)
        waits = rows > 0 and job.delivered_at is None and missing is not None and missing.seconds is not None
        if job.progress.ready_at is None:
            job.progress.ready_at = self._engine.clock.now()
        job.phase = Phase.WAITING if waits or job.export_again_at is not None else Phase.DONE

    def _export_again(self, job: PredictionJob) -> None:
        """Exports the results of a finished job once more: whole, or in another order."""
        if job.fault(kinds.LateOutput) is None:
            reverse_lines(job.output_path)
        self._export(job, again=True)
        job.export_again_at = None
        job.phase = Phase.DONE

    def _write_results(self, job: PredictionJob, rows: int) -> None:
        answerer, shape = self._answerers[job.id]
        seed = job.number if self._engine.settings.vertex_shuffle else None
        with job.answered_path.open("rb", buffering=BUFFER) as answered:
            lines = itertools.chain(
                damaged_lines(job, itertools.islice(answered, rows)), foreign_lines(job, answerer, shape)
            )
            write_lines(job, lines, job.output_path, shuffle_seed=seed)

    def _export(self, job: PredictionJob, *, fraction: float = 1.0, again: bool = False) -> None:
        if isinstance(job.output, GcsOutput):
            with self._storage() as storage:
                shard_bytes = self._engine.settings.vertex_shard_bytes
                export_objects(job.output_path, job.output.folder, storage, shard_bytes=shard_bytes, fraction=fraction)
        else:
            with self._bigquery() as bigquery:
                export_table(job, job.output_path, job.output.table, bigquery, fraction=fraction, again=again)
            if job.output.display_name is not None and not again:
                datasets = job.collection.removesuffix("batchPredictionJobs") + "datasets"
                made = self._datasets.add_output(datasets, job.output.display_name, f"bq://{job.output.table}")
                job.output_dataset = made.name

    def _clean(self, job: PredictionJob) -> None:
        self._answerers.pop(job.id, None)
        for path in (job.input_path, job.answered_path, job.output_path):
            path.unlink(missing_ok=True)
        if job.progress.stop and not any(kept is job for kept in self._engine.jobs):
            # A reset has removed the job, so nothing needs its keys.
            job.keys_path.unlink(missing_ok=True)


def _checker(*, embeddings: bool) -> RequestChecker:
    return RequestChecker(VERTEX_TYPES, "EmbedContentRequest" if embeddings else "GenerateContentRequest")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"
