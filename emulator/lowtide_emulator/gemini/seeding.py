"""Seeds of batches and files: a test's own, as if they had been created before.

Source: https://ai.google.dev/api/batch-api and https://ai.google.dev/api/files
"""

from __future__ import annotations

import hashlib
import re
from math import inf
from typing import Literal

import msgspec
from msgspec import Raw

from lowtide_emulator.engine import (
    BUFFER,
    Failure,
    Job,
    JobSeed,
    Moment,
    Past,
    SeedError,
    SeedFailure,
    SeedName,
    timeline,
)
from lowtide_emulator.gemini.file_store import Source, StoredFile, encoded_digest
from lowtide_emulator.gemini.intake import Loaded, RowKind, load_file, load_inline, one_line
from lowtide_emulator.gemini.mime_types import check_mime_type
from lowtide_emulator.gemini.wire import BATCHES
from lowtide_emulator.gemini.work import GeminiWork

_NAME = re.compile(r"batches/[a-zA-Z0-9-]+")
_FILE = re.compile(r"files/[a-zA-Z0-9-]+")
_decode_result = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_key = msgspec.json.Decoder(str).decode


class FileSeed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A file as a test wants it. Times are in seconds from now on the emulated clock; those in the past are negative.

    name: the whole name, `files/…`.
    text, data: the content, as text or in base64.
    state: the present state.
    active: the time when a PROCESSING file becomes ACTIVE; never by default.
    source: who made it. Only a GENERATED file has a `downloadUri` and can be downloaded.
    error: the error of a FAILED file.
    """

    name: SeedName
    text: str = ""
    data: bytes = b""
    display_name: str = ""
    mime_type: str = "application/jsonl"
    state: Literal["ACTIVE", "PROCESSING", "FAILED"] = "ACTIVE"
    created: Past = 0.0
    active: Moment | None = None
    source: Source = "UPLOADED"
    error: SeedFailure | None = None


def seed_file(work: GeminiWork, seed: FileSeed) -> StoredFile:
    """Adds a seed's file. Raises SeedError or RefusalError."""
    if _FILE.fullmatch(seed.name) is None:
        raise SeedError(f"name: {seed.name!r} is not of the form files/<letters, digits and dashes>")
    if seed.text and seed.data:
        raise SeedError(f"{seed.name}: give its content as text or as data, not both")
    file_id = seed.name.removeprefix("files/")
    work.files.check_new(file_id)
    check_mime_type(seed.mime_type)
    now = work.engine.clock.now()
    content = seed.data or seed.text.encode()
    work.files.check_size(len(content))
    path = None
    if seed.source != "REGISTERED":
        path = work.files.content_path()
        path.write_bytes(content)
    failure = seed.error or SeedFailure()
    active = now + seed.created
    if seed.state == "PROCESSING":
        active = inf if seed.active is None else now + seed.active
    return work.files.add(
        StoredFile(
            number=0,
            id=file_id,
            display_name=seed.display_name,
            mime_type=seed.mime_type,
            size=len(content),
            sha256=encoded_digest(hashlib.sha256(content)),
            created=now + seed.created,
            active=active,
            expires=now + seed.created + work.engine.settings.file_seconds,
            path=path,
            source=seed.source,
            failure=Failure(failure.code, failure.message, now) if seed.state == "FAILED" else None,
        )
    )


def seed_batch(work: GeminiWork, seed: JobSeed) -> Job:
    """Adds a seed's batch, with its results if it has any. Raises SeedError or RefusalError."""
    engine, settings = work.engine, work.engine.settings
    if _NAME.fullmatch(seed.name) is None:
        raise SeedError(f"name: {seed.name!r} is not of the form batches/<letters, digits and dashes>")
    if seed.destination is not None:
        raise SeedError(f"{seed.name}: destination: only Vertex AI's jobs have one")
    times = timeline(seed, engine.clock.now())
    job_id = seed.name.removeprefix("batches/")
    base = engine.jobs_folder / job_id
    job = Job(
        number=engine.jobs.next_number(),
        id=job_id,
        collection=BATCHES,
        model=seed.model if "/" in seed.model else f"models/{seed.model}",
        answered_by=engine.models.answering(seed.model.rpartition("/")[2], times.created),
        display_name=seed.display_name,
        embeddings=seed.embeddings,
        source=seed.source,
        requests=0,
        created=times.created,
        pending_seconds=times.pending_seconds,
        running_seconds=times.running_seconds,
        expire_seconds=settings.expire_seconds,
        faults=times.faults,
        input_path=base.with_suffix(".input"),
        keys_path=base.with_suffix(".keys"),
        output_path=base.with_suffix(".output"),
        cancelled_at=times.cancelled_at,
    )
    job.requests, job.tokens = _load(work, job, seed)
    work.seed(job, seed.results)
    return job


def _load(work: GeminiWork, job: Job, seed: JobSeed) -> Loaded:
    """Writes the rows of a seed and their keys, and returns what they hold."""
    kind = RowKind(embeddings=job.embeddings, count_tokens=work.engine.quotas.count_tokens)
    if seed.requests and seed.source is None:
        return load_inline(seed.requests, job.input_path, job.keys_path, kind)
    if seed.requests:
        return _load_lines(seed.requests, job, kind)
    file = None if seed.source is None else work.files.find(seed.source.removeprefix("files/"))
    if file is not None and file.path is not None:
        return load_file(file.path, job.input_path, job.keys_path, kind)
    if seed.results:
        return _keys_of_results(seed.results, job)
    raise SeedError(f"{seed.name}: give its requests, its results, or a source that exists")


def _load_lines(rows: list[Raw], job: Job, kind: RowKind) -> Loaded:
    lines = job.input_path.with_suffix(".lines")
    try:
        lines.write_bytes(b"".join(one_line(row) for row in rows))
        return load_file(lines, job.input_path, job.keys_path, kind)
    finally:
        lines.unlink(missing_ok=True)


def _keys_of_results(results: list[Raw], job: Job) -> Loaded:
    job.input_path.touch()
    with job.keys_path.open("wb", buffering=BUFFER) as keys:
        for row in results:
            fields = _decode_result(row)
            found = fields.get("key")
            if found is None and "metadata" in fields:
                found = _decode_result(fields["metadata"]).get("key")
            keys.write(msgspec.json.encode("" if found is None else _decode_key(found)) + b"\n")
    return Loaded(len(results), 0)
