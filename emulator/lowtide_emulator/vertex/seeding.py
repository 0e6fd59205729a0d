"""Seeds of batch prediction jobs: a test's own, as if they had been created before.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import re

from msgspec import Raw

from lowtide_emulator.engine import Engine, JobSeed, SeedError, timeline
from lowtide_emulator.vertex.jobs import BigQueryOutput, GcsOutput, PredictionJob
from lowtide_emulator.vertex.wire import PUBLISHER
from lowtide_emulator.vertex.work import VertexWork
from lowtide_emulator.wire import timestamp

_NAME = re.compile(r"(projects/[^/]+/locations/[^/]+/batchPredictionJobs)/([0-9]+)")


def _job(engine: Engine, seed: JobSeed) -> PredictionJob:
    """Returns the job of a seed. Raises SeedError."""
    found = _NAME.fullmatch(seed.name)
    if found is None:
        form = "projects/<project>/locations/<location>/batchPredictionJobs/<digits>"
        raise SeedError(f"name: {seed.name!r} is not of the form {form}")
    if seed.source is None or not seed.source.startswith(("gs://", "bq://")):
        raise SeedError(f"{seed.name}: source: give a place that begins with gs:// or bq://")
    if seed.destination is None or not seed.destination.startswith(("gs://", "bq://")):
        raise SeedError(f"{seed.name}: destination: give a place that begins with gs:// or bq://")
    if seed.requests and not seed.source.startswith("gs://"):
        raise SeedError(f"{seed.name}: requests: only a source in Cloud Storage can be written; fill the table first")
    times, settings = timeline(seed, engine.clock.now()), engine.settings
    base = engine.jobs_folder / found[2]
    return PredictionJob(
        number=engine.jobs.next_number(),
        id=found[2],
        collection=found[1],
        model=seed.model if "/" in seed.model else PUBLISHER + seed.model,
        answered_by=engine.models.answering(seed.model.rpartition("/")[2], times.created),
        display_name=seed.display_name,
        embeddings=seed.embeddings,
        source=seed.source,
        requests=0,
        created=times.created,
        pending_seconds=times.pending_seconds,
        running_seconds=times.running_seconds,
        queue_seconds=settings.vertex_queue_seconds,
        run_seconds=settings.vertex_run_seconds,
        exports=True,
        faults=times.faults,
        input_path=base.with_suffix(".input"),
        keys_path=base.with_suffix(".keys"),
        output_path=base.with_suffix(".output"),
        cancelled_at=times.cancelled_at,
        uris=[seed.source],
        output=_output(seed.destination, times.created),
        labels=seed.labels,
        input_config=_input_config(seed.source),
        output_config=_output_config(seed.destination),
        results=None if seed.results is None else [*map(_line, seed.results)],
    )


def seed_job(work: VertexWork, engine: Engine, seed: JobSeed) -> PredictionJob:
    """Adds a seed's job, and returns it when it has its state: with its output in place, if it has any.

    Raises SeedError, RefusalError or JobFailed.
    """
    job = _job(engine, seed)
    work.check_servers(job)
    if seed.requests:
        work.write_source(job, b"".join(map(_line, seed.requests)))
    work.start(job)
    work.settle(job)
    if (failure := job.progress.failure) is not None:
        raise SeedError(f"{seed.name}: {failure.message}")
    return job


def _line(row: Raw) -> bytes:
    # A line break can be between the tokens of a row but not inside a token.
    return bytes(row).replace(b"\n", b" ") + b"\n"


def _output(destination: str, created: float) -> GcsOutput | BigQueryOutput:
    if destination.startswith("gs://"):
        return GcsOutput(f"{destination.rstrip('/')}/prediction-model-{timestamp(created, digits=6)}")
    return BigQueryOutput(destination.removeprefix("bq://"))


def _input_config(source: str) -> dict[str, object]:
    if source.startswith("gs://"):
        return {"instancesFormat": "jsonl", "gcsSource": {"uris": [source]}}
    return {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": source}}


def _output_config(destination: str) -> dict[str, object]:
    if destination.startswith("gs://"):
        return {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": destination}}
    return {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": destination}}
