"""The Celery tasks: one for each stage, all run the same way.

A task begins the work of its message (or finds that the message is stale), runs the stage, and ends with one step of
the clock. An error of a stage only puts the entity back on the clock, after longer and longer pauses; nothing is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import redis

from lowtide.errors import LowtideError
from lowtide.models import ResultError
from lowtide.protocol import ARRIVED, TAKEN, VERSION, Stage, keys, member
from lowtide.protocol.changes import EntityChange, JobChange
from lowtide.redaction import problem_text
from lowtide.states import JobState
from lowtide.store import REFUSED, is_wrong, wrong_keys
from lowtide.tracing import failed
from lowtide_worker.arrivals import accept_arrivals
from lowtide_worker.crashpoints import reach
from lowtide_worker.deadlines import elapsed
from lowtide_worker.events import Event, enter_stage
from lowtide_worker.host.application import app
from lowtide_worker.host.ticker import postponed, pump, send
from lowtide_worker.inbox import Outcome, take_in
from lowtide_worker.providers import ProviderError, Throttled
from lowtide_worker.runtime import Runtime, runtime
from lowtide_worker.stages.clean import clean
from lowtide_worker.stages.collect import collect
from lowtide_worker.stages.create import create
from lowtide_worker.stages.delete import delete
from lowtide_worker.stages.deliver import deliver
from lowtide_worker.stages.gather import gather
from lowtide_worker.stages.notify import notify
from lowtide_worker.stages.poll import poll
from lowtide_worker.stages.settle import settle
from lowtide_worker.stages.submit import submit
from lowtide_worker.stages.sweep import sweep
from lowtide_worker.state import (
    Done,
    Held,
    HeldBatch,
    HeldEvent,
    HeldJob,
    HeldSegment,
    JobMove,
    Move,
    NotHeld,
    Superseded,
    bounded,
)
from lowtide_worker.tracing import describe_end, stage_span

log = logging.getLogger(__name__)

_MOST_SURPRISES = 8
"""Failures in a row, of a kind that no class of failure covers, after which a job is given up."""
_HOLD_A_SLOT = frozenset({Stage.CREATE, Stage.POLL})
_NO_SURPRISES = (ProviderError, LowtideError, OSError, redis.ResponseError)

Report = dict[str, object]
StageFunction = Callable[[Runtime, Any], Move[Any] | Done]

STAGES: dict[Stage, StageFunction] = {
    Stage.GATHER: gather,
    Stage.SUBMIT: submit,
    Stage.CREATE: create,
    Stage.POLL: poll,
    Stage.COLLECT: collect,
    Stage.DELIVER: deliver,
    Stage.SETTLE: settle,
    Stage.CLEAN: clean,
    Stage.DELETE: delete,
    Stage.NOTIFY: notify,
    Stage.SWEEP: sweep,
}


def run(stage: Stage, message: dict[str, Any]) -> Report:
    """Runs the stage that a message asks for; returns a report that Flower shows.

    `message` holds the arguments as `lowtide_worker.host.reader` let them through.
    """
    try:
        return _run(_world(), stage, message)
    except redis.RedisError as error:
        # Nothing can be recorded now; the lease lapses and the work comes again.
        refused = isinstance(error, redis.ResponseError)
        why = "Redis refuses a command" if refused else "Redis does not answer"
        log.warning(
            "%s: %s, so this work is done again when its lease expires: %s",
            *(stage, why, error),
            extra=Event.STAGE_INTERRUPTED.extra,
        )
        return {"skipped": why}


def _world() -> Runtime:
    world = runtime()
    world.wake = partial(pump, app)
    return world


def _run(world: Runtime, stage: Stage, message: dict[str, Any]) -> Report:
    sweeps = stage is Stage.SWEEP
    about = keys.SWEEP_MEMBER if sweeps else member(message)
    version = int(message["v"])
    if version > VERSION:
        if world.ledger.knows(about):
            return {"skipped": "newer"}
        return _refused(world, stage, message, f"version {version} is newer than this worker's {VERSION}")
    enter_stage(stage, about)
    token = int(message["token"])
    began = elapsed()
    held = world.clock.begin(stage, about, token)
    reach(f"{stage.name.lower()}.after-begin")
    if held is NotHeld.MISSING and stage is Stage.SUBMIT:
        outcome = take_in(world, about.batch)
        if outcome is not Outcome.NOTHING:
            held = world.clock.begin(stage, about, token)
            if held is NotHeld.MISSING:
                return {"inbox": str(outcome)}
    if held is NotHeld.MISSING:
        return _refused(world, stage, message, f"there is no {about}")
    if isinstance(held, NotHeld):
        return {"skipped": str(held)}
    if isinstance(held, (HeldBatch, HeldJob, HeldSegment, HeldEvent)) and held.damage is None:
        enter_stage(stage, about, held.batch.provider)
    try:
        with stage_span(world.redis, held):
            report = _work(world, stage, held)
            describe_end(held, report)
            return report
    finally:
        world.measurements.ran_stage(stage, elapsed() - began)


def _work(world: Runtime, stage: Stage, held: Held[Any]) -> Report:
    try:
        try:
            with world.leases.kept(held):
                end = _given_up(world, stage, held) or _run_stage(world, stage, held)
            if isinstance(end, Move) and held.record.failures:
                end = replace(end, fields={"failures": 0, "problem": None, **end.fields})
            if isinstance(end, Move) and _surprises(held) and end.stage is not Stage.CREATE:
                end = replace(end, fields={"surprises": 0, **end.fields})
        except redis.ResponseError as error:
            # Redis serves. Of a damaged key, or a permission that lacks, the entity can say so.
            end = _again(world, stage, held, error)
        except (Superseded, redis.RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - the work is not lost, whatever the error is: it comes again
            end = _again(world, stage, held, error)
        if isinstance(end, Move):
            reach(f"{stage.name.lower()}.before-advance")
            dispatch = world.clock.advance(held, end)
            reach(f"{stage.name.lower()}.after-advance")
            if dispatch is not None:
                with postponed(dispatch.stage.queue):
                    send(app, [dispatch])
    except Superseded:
        log.info("%s: another worker has taken over", held.member, extra=Event.STAGE_SUPERSEDED.extra)
        return {"skipped": "superseded"}
    for queue in end.wakes:
        pump(app, queue)
    return _report(held, end)


def _run_stage(world: Runtime, stage: Stage, held: Held[Any]) -> Move[Any] | Done:
    if held.damage is not None:
        raise held.damage
    return STAGES[stage](world, held)


def _surprises(held: Held[Any]) -> int:
    return held.record.surprises if isinstance(held, HeldJob) else 0


def _again(world: Runtime, stage: Stage, held: Held[Any], error: Exception) -> Move[Any]:
    """The end of a stage that has raised an error: it runs again after a pause."""
    world.measurements.stage_failed(stage, error)
    failed(error)
    failures = held.record.failures + 1
    backoff = world.quota_backoff if isinstance(error, Throttled) else world.retry_backoff
    pause = backoff.seconds(failures - 1)
    expected = isinstance(error, ProviderError)
    problem = _problem(world, error)
    log.warning(
        "%s: %s failed and will be retried in %.0f s: %s: %s",
        *(held.member, stage, pause, type(error).__name__, problem),
        exc_info=not expected,
        extra=Event.STAGE_FAILED.extra,
    )
    if stage is Stage.CREATE and isinstance(held, HeldJob) and not expected and not _has_intent(world, held):
        # There is nothing at the provider: other jobs may have the slot while this one waits.
        world.clock.keep(held)
        with suppress(redis.ResponseError):
            world.admission.withdraw(held)
    if not isinstance(held, HeldJob):
        change: EntityChange = {"failures": failures, "problem": problem}
        return Move(stage=stage, after=pause, fields=change)
    fields: JobChange = {"failures": failures, "problem": problem}
    if stage is Stage.CREATE and held.damage is None:
        if isinstance(error, ProviderError):
            # Should it never be created, its requests expire with this reason.
            fields["error"] = bounded(error.error)
        left = world.settings.deadline_of(held.batch) - held.now()
        pause = min(pause, max(1.0, left)) if left > 0 else pause
    if stage not in _HOLD_A_SLOT or isinstance(error, _NO_SURPRISES):
        return Move(stage=stage, after=pause, fields=fields)
    fields["surprises"] = held.record.surprises + 1
    fields["surprise"] = f"{type(error).__name__}: {problem}"
    if stage is Stage.CREATE and not held.record.intent:
        # If there was a call, it is over: its outcome can be found after the settling time.
        fields["answered"] = held.now()
    return Move(stage=stage, after=pause, fields=fields)


def _problem(world: Runtime, error: Exception) -> str:
    said = problem_text(error)
    if is_wrong(error):
        # Redis does not say which key it is.
        with suppress(redis.RedisError):
            said = "; ".join([said, *wrong_keys(world.redis)])
    if isinstance(error, redis.ResponseError):
        return f"{REFUSED}{said}"
    return said


def _has_intent(world: Runtime, job: HeldJob) -> bool:
    """Whether a create of the job was intended, now or before."""
    record = job.record if job.damage is not None else world.ledger.job(job.record.id)
    return record is not None and bool(record.intent)


def _given_up(world: Runtime, stage: Stage, held: Held[Any]) -> JobMove | None:
    """The end of a job for which a stage that holds a slot fails again and again for an unknown reason; else None.

    A job with nothing at the provider is given up at once. One that is there, or may be, is paid, and is given up only
    after its deadline.
    """
    if stage not in _HOLD_A_SLOT or not isinstance(held, HeldJob) or held.record.surprises < _MOST_SURPRISES:
        return None
    job = held.record
    there = job.created or job.intent
    if there and held.now() - there < world.settings.job_deadline_seconds:
        return None
    problem = f"{stage} failed {job.surprises} times: {job.surprise}"
    log.error("%s is given up: %s", held.member, problem, extra=Event.JOB_GIVEN_UP.extra)
    world.admission.release(held)
    state = JobState.EXPIRED if there else JobState.FAILED
    error = bounded(ResultError(reason="INTERNAL", message=problem))
    return Move(stage=Stage.SETTLE, fields={"state": state, "error": error})


def _report(held: Held[Any], end: Move[Any] | Done) -> Report:
    """A report for people who watch: the state now, and the next stage."""
    if isinstance(end, Done):
        return {name: str(value) for name, value in end.facts.items() if value}
    state = end.fields.get("state") or getattr(held.record, "state", None)
    report: Report = {"state": str(state)} if state else {}
    if end.stage is not None:
        report["next"] = f"{end.stage} in {end.after:.1f} s" if end.after else str(end.stage)
    if end.fields.get("problem"):
        report["problem"] = str(end.fields["problem"])
    return report


def _refused(world: Runtime, stage: Stage, message: dict[str, Any], reason: str) -> Report:
    world.oddities.dead_letter(reason, {"task": stage, "message": repr(message)})
    return {"refused": reason}


def _register(stage: Stage) -> None:
    def task(**message: Any) -> Report:
        return run(stage, message)

    task.__name__ = stage.name.lower()
    task.__doc__ = STAGES[stage].__doc__
    app.task(name=str(stage), ignore_result=True)(task)


for _stage in Stage:
    _register(_stage)


@app.task(name=TAKEN, ignore_result=True)
def taken(*, delivery_id: str, **_: object) -> Report:
    """Ends a delivery, for handlers without this package: they send this task when its results are handled."""
    runtime().delivery_client.taken(delivery_id)
    return {}


@app.task(name=ARRIVED, ignore_result=True)
def arrived(**_: object) -> Report:
    """Accepts singles of producers without this package."""
    return {"singles": accept_arrivals(runtime())}
