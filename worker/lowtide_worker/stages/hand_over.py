"""hand over: gives the stored results of a segment to its batch's handler, and parks what no handler takes.

This is the second half of the stage `lowtide.deliver`. It is not a stage of its own, which would cost each segment
another message and two more round trips to Redis, about a millisecond, for nothing that `deliver` does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from lowtide.backoff import Backoff
from lowtide.protocol import BatchFiles, Queue, Stage, split_job_id
from lowtide.redaction import problem_text
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.handlers import Delivery, HandlerFailed, NoListener
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, HeldSegment, Move, SegmentMove, known
from lowtide_worker.tracing import onward

log = logging.getLogger(__name__)

_LONGEST_PATIENCE = 86_400.0
_QUEUED_SECONDS = 1800.0
"""A segment without a place is woken when its turn comes. After this time it tries again by itself."""
_LISTENER_BACKOFF = Backoff(first=2.0, cap=60.0)
"""A worker that begins to listen wakes the segments that wait for it. They try again by themselves, too."""


@dataclass(frozen=True)
class Stored:
    """A segment whose results are stored: all that its handing over needs to know of its storing."""

    counts: Mapping[str, int]
    """How many results of each kind this run stored; empty where an earlier run has stored them."""
    handler_waits: bool
    """Whether there is a handler, and a result for it."""
    wakes: tuple[Queue, ...]
    """Queues for which something is due now."""


def hand_over(runtime: Runtime, segment: HeldSegment, stored: Stored) -> SegmentMove | Done:
    """Gives the results to the handler: again later if it fails, and parks them after the last try."""
    tries = segment.record.tries
    most = runtime.settings.max_delivery_attempts
    if tries >= most:
        log.error("%s: its handler failed %d times; parked", segment.member, tries, extra=Event.DELIVERY_PARKED.extra)
        runtime.deliveries.park(segment)
        return Done({"parked": tries})
    handler = runtime.handler(known(segment.batch.on_result, "on_result"))
    silences = segment.record.silences
    patience = min(runtime.settings.handler_patience_seconds * 2**silences, _LONGEST_PATIENCE)
    if handler.answers and not runtime.deliveries.offer(segment, patience=patience):
        return Move(stage=Stage.DELIVER, after=_QUEUED_SECONDS, wakes=stored.wakes)
    delivery = _delivery(segment, attempt=tries + 1)
    reach("deliver.before-hand-over")
    runtime.clock.check(segment)
    try:
        queue = handler.hand_over(delivery)
    except NoListener as no_listener:
        return _without_listener(runtime, segment, stored, no_listener)
    except HandlerFailed as failure:
        return _failed(runtime, segment, stored, failure)
    reach("deliver.after-hand-over")
    if segment.record.problem:
        runtime.deliveries.forget_problem(segment)
    if handler.answers:
        # The message, or the worker that has it, can be lost. So silence is no failure, but the segment comes again.
        return Move(
            stage=Stage.DELIVER,
            after=patience,
            fields={"silences": silences + 1, "sent_to": queue, "problem": None, "looks": 0, "most_tries": most},
            wakes=stored.wakes,
        )
    runtime.deliveries.taken(segment)
    return Done({**stored.counts, "handed_over": delivery.attempt}, wakes=stored.wakes)


def _delivery(segment: HeldSegment, *, attempt: int) -> Delivery:
    return Delivery(
        batch_id=segment.batch_id,
        delivery_id=segment.member.delivery_id,
        results=BatchFiles(segment.batch_id).result(split_job_id(segment.record.job_id)[1], segment.record.number),
        attempt=attempt,
        only=segment.record.only,
        labels=segment.batch.labels,
        trace=onward(segment.batch),
    )


def _without_listener(runtime: Runtime, segment: HeldSegment, stored: Stored, no_listener: NoListener) -> SegmentMove:
    """The end for a handler that no worker listens for: it costs no try."""
    problem = problem_text(no_listener)
    waits = runtime.deliveries.await_listener(segment, no_listener.listens_as, problem)
    looks = segment.record.looks
    if not looks:
        log.warning("%s: %s", segment.member, problem, extra=Event.DELIVERY_NO_LISTENER.extra)
    return Move(
        stage=Stage.DELIVER,
        after=_LISTENER_BACKOFF.seconds(looks) if waits else 0.0,
        fields={"looks": looks + 1, "problem": problem},
        wakes=stored.wakes,
    )


def _failed(runtime: Runtime, segment: HeldSegment, stored: Stored, failure: HandlerFailed) -> SegmentMove:
    """The end for a handler that did not take the segment: its next try comes later."""
    tries = segment.record.tries
    problem = problem_text(failure)
    log.warning("%s: handler failed: %s", segment.member, problem, extra=Event.DELIVERY_FAILED.extra)
    runtime.clock.check(segment)
    runtime.deliveries.withdraw(segment)
    pause = runtime.delivery_backoff.seconds(tries)
    runtime.deliveries.note_failure(segment, problem, attempt=tries + 1, pause=pause)
    return Move(
        stage=Stage.DELIVER,
        after=pause,
        fields={"tries": tries + 1, "problem": problem},
        wakes=stored.wakes,
    )
