"""notify: notifies a handler that a batch has ended, or how far it is.

The batch event of an end holds a copy of its batch, and is put on the clock by the script that ends the batch. So it
survives the death of any worker, and the deletion of the batch. It is given to its handler until that takes it, or
parked as a dead letter after the last try. That of the progress stays on the clock until its batch ends.
"""

from __future__ import annotations

import logging

from lowtide.backoff import Backoff
from lowtide.errors import BatchNotFound
from lowtide.protocol import EventName, Stage, batch_status
from lowtide.protocol.changes import EventChange
from lowtide.redaction import problem_text
from lowtide.store import shared_ranges
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.handlers import BatchEvent, HandlerFailed, NoListener, Resting
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Done, EventMove, HeldEvent, Move, Superseded, known
from lowtide_worker.tracing import onward

log = logging.getLogger(__name__)

_LONGEST_PATIENCE = 86_400.0
_LISTENER_BACKOFF = Backoff(first=1.0, cap=300.0)
_RESTING_TRIES = 3
"""The pause while a target rests is that after so many tries."""
_READ_SECONDS = 86_400.0
"""Time for which a Celery handler that need not answer finds a batch event in the store."""


def notify(runtime: Runtime, event: HeldEvent) -> EventMove | Done:
    """Gives a batch event to its handler: again later if it fails, and parks it after the last try."""
    if event.member.event == EventName.PROGRESS:
        return _progress(runtime, event)
    record = event.record
    ended = known(record.finished, "finished")
    left = runtime.settings.undelivered_retention_seconds - event.age_of(ended)
    if left <= 0:
        log.error("%s: no handler took it in time; dropped", event.member, extra=Event.EVENT_DROPPED.extra)
        return _over(runtime, event, {"dropped": 1})
    if record.tries >= runtime.settings.max_delivery_attempts:
        log.error("%s: its handler failed %d times; parked", event.member, record.tries, extra=Event.EVENT_PARKED.extra)
        if not runtime.batch_events.park(event.member, event.token, left):
            raise Superseded(event.member)
        return Done({"parked": record.tries})
    handler = runtime.handler(known(record.on_finished, "on_finished"))
    if record.sent_to and not handler.answers:
        return _over(runtime, event, {"handed_over": record.tries + 1})
    told = BatchEvent(
        type=f"batch.{record.state}",
        delivery_id=event.member.delivery_id,
        time=ended,
        status=batch_status(record, [], []),
        shared_results=shared_ranges(record),
        attempt=record.tries + 1,
        trace=onward(record),
    )
    reach("notify.before-hand-over")
    runtime.clock.check(event)
    try:
        queue = handler.notify(told)
    except NoListener as no_listener:
        return _without_listener(runtime, event, no_listener)
    except Resting as resting:
        pause = runtime.delivery_backoff.seconds(max(_RESTING_TRIES, record.tries))
        return Move(stage=Stage.NOTIFY, after=pause, fields={"problem": problem_text(resting)})
    except HandlerFailed as failure:
        problem = problem_text(failure)
        log.warning("%s: its handler failed: %s", event.member, problem, extra=Event.EVENT_FAILED.extra)
        runtime.batch_events.note_problem(event.member, problem)
        pause = runtime.delivery_backoff.seconds(record.tries)
        return Move(stage=Stage.NOTIFY, after=pause, fields={"tries": record.tries + 1, "problem": problem})
    reach("notify.after-hand-over")
    if handler.answers:
        # The message, or the worker that has it, can be lost. So silence is no failure, but the event comes again.
        patience = min(runtime.settings.handler_patience_seconds * 2**record.silences, _LONGEST_PATIENCE)
        fields: EventChange = {"silences": record.silences + 1, "sent_to": queue, "problem": None, "looks": 0}
        return Move(stage=Stage.NOTIFY, after=patience, fields=fields)
    if queue is not None:
        # It counts as taken, but its handler reads it from the store.
        return Move(stage=Stage.NOTIFY, after=_READ_SECONDS, fields={"sent_to": queue, "problem": None, "looks": 0})
    return _over(runtime, event, {"handed_over": told.attempt})


def _progress(runtime: Runtime, event: HeldEvent) -> EventMove | Done:
    """Reports the progress, if there is any, and comes again; after a failure too, with newer figures."""
    record, pause = event.record, runtime.settings.progress_seconds
    try:
        status = runtime.store.status(event.batch_id)
    except BatchNotFound:
        return _over(runtime, event, {"gone": 1})
    if status.finished:
        return _over(runtime, event, {"finished": 1})
    if status.answered == record.reported:
        return Move(stage=Stage.NOTIFY, after=pause)
    told = BatchEvent(
        type="batch.progress",
        delivery_id=f"{event.member.delivery_id}:{record.sent_events + 1}",
        time=event.now(),
        status=status,
        shared_results=runtime.store.stored(event.batch_id),
        attempt=1,
        trace=onward(record),
    )
    try:
        runtime.handler(known(record.on_progress, "on_progress")).notify(told)
    except (NoListener, HandlerFailed, Resting) as failure:
        problem = problem_text(failure)
        log.warning("%s: its handler failed: %s", event.member, problem, extra=Event.EVENT_FAILED.extra)
        return Move(stage=Stage.NOTIFY, after=pause, fields={"sent_events": record.sent_events + 1, "problem": problem})
    return Move(
        stage=Stage.NOTIFY,
        after=pause,
        fields={"sent_events": record.sent_events + 1, "reported": status.answered, "problem": None},
    )


def _over(runtime: Runtime, event: HeldEvent, facts: dict[str, object]) -> Done:
    """Ends a batch event. Raises `Superseded`."""
    if not runtime.batch_events.taken(event.member, event.token):
        raise Superseded(event.member)
    return Done(facts)


def _without_listener(runtime: Runtime, event: HeldEvent, no_listener: NoListener) -> EventMove:
    """The end for a handler that no worker listens for: it costs no try."""
    problem, looks = problem_text(no_listener), event.record.looks
    if not looks:
        log.warning("%s: %s", event.member, problem, extra=Event.EVENT_NO_LISTENER.extra)
        runtime.batch_events.note_problem(event.member, problem)
    return Move(
        stage=Stage.NOTIFY, after=_LISTENER_BACKOFF.seconds(looks), fields={"looks": looks + 1, "problem": problem}
    )
