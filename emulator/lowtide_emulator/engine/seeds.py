"""Seeds: jobs that a test puts into the emulator as if they had been created, and had run, before."""

from __future__ import annotations

from math import inf
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw

from lowtide_emulator.engine.jobs import JobState
from lowtide_emulator.faults import kinds

Moment = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""A time in seconds from now, within thirty years: dates have a bound."""
Past = Annotated[float, Meta(ge=-1e9, le=0)]
SeedName = Annotated[str, Meta(max_length=200)]
"""The whole name of a job or file; its last part becomes the name of a file on disk."""
PREFIXES = ("BATCH_STATE_", "JOB_STATE_")


class SeedError(ValueError):
    """A seed contradicts itself, or something else that exists; the message names the field."""


class SeedFailure(msgspec.Struct, forbid_unknown_fields=True):
    """The error of a job or of a file."""

    code: int = 13
    message: str = "Internal error encountered."


class JobSeed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A job as a test wants it. Times are in seconds from now on the emulated clock; those in the past are negative.

    name: the whole name: `batches/…`, or `projects/…/locations/…/batchPredictionJobs/…`.
    model: the model, as the API names it, or its bare name.
    state: the present state, with or without `BATCH_STATE_` or `JOB_STATE_`. A state of which the emulator knows
        nothing is reported for ever. An unfinished job expires at the service's age.
    created: the time of creation.
    started: the time when the job starts to run. By default at its creation; never for a PENDING job.
    ended: the time when it ends; now by default. A PENDING or RUNNING job ends SUCCEEDED then; by default never.
    requests: the rows of the input, in the API's form. Inline rows, if there is no `source`.
    source: the name of the input: `files/…`, `gs://…` or `bq://…`. Without `requests` it must exist.
    destination: the place of the output, `gs://…` or `bq://…`; Vertex AI only.
    results: the rows of the output, in the API's form. By default the emulator answers the requests.
    error: the error of a FAILED job.
    """

    name: SeedName
    model: str
    state: str = "SUCCEEDED"
    display_name: str = ""
    created: Past = 0.0
    started: Moment | None = None
    ended: Moment | None = None
    requests: list[Raw] = []
    source: str | None = None
    destination: str | None = None
    results: list[Raw] | None = None
    embeddings: bool = False
    labels: dict[str, str] = {}
    error: SeedFailure | None = None


class Timeline(NamedTuple):
    """A seed's times as a job has them, and the faults that make it end in its state."""

    created: float
    pending_seconds: float
    running_seconds: float
    cancelled_at: float | None
    faults: list[kinds.Kind]


def timeline(seed: JobSeed, now: float) -> Timeline:
    """Returns the times of a seed's job. Raises SeedError if they contradict its state.

    now: the emulated time, in seconds since the epoch.
    """
    name = seed.state
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    known = {state.value: state for state in JobState if state is not JobState.CANCELLING}
    state = known.get(name)
    faults: list[kinds.Kind] = []
    if state is None:
        faults.append(kinds.State(state=seed.state if seed.state != name else f"BATCH_STATE_{name}"))
        state = JobState.RUNNING
    started, ended = seed.started, seed.ended
    if started is None:
        started = inf if state is JobState.PENDING else seed.created
    if ended is None:
        ended = 0.0 if state.is_terminal else inf
    _check_times(seed, state, started, ended)
    if state.is_terminal:
        faults += _endings(seed, state)
    return Timeline(
        created=now + seed.created,
        pending_seconds=started - seed.created,
        running_seconds=ended - started if started < inf else 0.0,
        cancelled_at=now + ended if state is JobState.CANCELLED else None,
        faults=faults,
    )


def _check_times(seed: JobSeed, state: JobState, started: float, ended: float) -> None:
    if not seed.created <= started:
        raise SeedError(f"{seed.name}: started is before created")
    if not started <= ended:
        raise SeedError(f"{seed.name}: ended is before started")
    if state.is_terminal:
        if ended > 0:
            raise SeedError(f"{seed.name}: a job in state {seed.state} cannot end in the future: ended is {ended}")
        return
    if state is JobState.PENDING and started <= 0:
        raise SeedError(f"{seed.name}: a PENDING job cannot have started: started is {started}")
    if state is JobState.RUNNING and started > 0:
        raise SeedError(f"{seed.name}: a RUNNING job cannot start in the future: started is {started}")
    if ended <= 0:
        raise SeedError(f"{seed.name}: a job in state {seed.state} cannot have ended: ended is {ended}")


def _endings(seed: JobSeed, state: JobState) -> list[kinds.Kind]:
    share = min(1.0, len(seed.results or ()) / max(1, len(seed.requests)))
    match state:
        case JobState.FAILED:
            failure = seed.error or SeedFailure()
            return [kinds.Fail(code=failure.code, message=failure.message, fraction=share)]
        case JobState.EXPIRED:
            return [kinds.Expire(fraction=share)]
        case JobState.PARTIALLY_SUCCEEDED:
            return [kinds.PartialOutput(state="PARTIALLY_SUCCEEDED", fraction=share or 0.5)]
        case _:
            return []
