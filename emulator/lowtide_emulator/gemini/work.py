"""The work on batches: their rows are answered at once, and their results are kept as files."""

from __future__ import annotations

import sys
import time

import msgspec
from msgspec import Raw

from lowtide_emulator.engine import Engine, Failure, Job, StoppedError, write_results
from lowtide_emulator.gemini.file_store import FileStore
from lowtide_emulator.gemini.intake import one_line
from lowtide_emulator.gemini.rows import FileShape, InlineShape

_decode_row = msgspec.json.Decoder(dict[str, Raw]).decode


class GeminiWork:
    """The uploaded files of an engine, and the work on its batches."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.files = FileStore(engine.settings, engine.clock, engine.folder / "files")
        engine.at_reset(self.files.clear)
        engine.at_close(self.files.clear)

    def start(self, job: Job) -> None:
        """Adds a new batch and starts to answer its rows, unless it never delivers results."""
        self.engine.jobs.add(job)
        if job.rows_delivered:
            self.engine.submit(lambda: self._answer(job))
        else:
            job.input_path.unlink(missing_ok=True)

    def seed(self, job: Job, results: list[Raw] | None) -> None:
        """Adds a batch that has its state already, with its results in place.

        results: the rows of the output; None to answer the requests.
        """
        job.progress.answered = job.requests
        if results is not None:
            job.output_path.write_bytes(b"".join(map(one_line, results)))
            job.progress.failed.extend(index for index, row in enumerate(results) if not _is_success(row))
        elif job.ending.rows:
            write_results(job, self.engine.answerer(job), InlineShape() if job.inline else FileShape())
        job.progress.ready_at = job.created
        job.input_path.unlink(missing_ok=True)
        self.engine.jobs.add(job)

    def _answer(self, job: Job) -> None:
        began = time.thread_time()
        engine, progress = self.engine, job.progress
        try:
            shape = InlineShape() if job.inline else FileShape()
            write_results(job, engine.answerer(job), shape)
            progress.ready_at = engine.clock.now()
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's error must show in the job
            if not progress.stop:
                progress.failure = Failure(13, f"{type(error).__name__}: {error}", engine.clock.now())
                sys.stderr.write(f"lowtide-emulator: job {job.id}: {progress.failure.message}\n")
        finally:
            job.input_path.unlink(missing_ok=True)
            if job.deleted_at is not None or job.cancelled_at is not None:
                job.output_path.unlink(missing_ok=True)
            engine.stats.answered(progress.answered, time.thread_time() - began)


def _is_success(row: Raw) -> bool:
    response = _decode_row(row).get("response")
    return response is not None and bytes(response) != b"null"
