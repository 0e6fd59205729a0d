"""The messages: which task runs a stage, on which queue, and what its arguments are.

A message carries ids, the schema version and the dispatch token, nothing else. The hashes behind the
ids are the truth; a message only says that something is due.
"""

from __future__ import annotations

import re
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lowtide.addresses import broker_config
from lowtide.protocol import keys
from lowtide.protocol.layout import BATCH_ID, split_job_id
from lowtide.protocol.members import EventName, Member, MemberKind

if TYPE_CHECKING:
    from celery import Celery

_SEGMENT = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
VERSION = 1
"""Version of messages, of inbox files, and of what handlers get. A worker leaves a newer one for a newer worker."""
RECORD_VERSION = 4
"""Version of the records in Redis and of the batches' files. A worker leaves a newer one for a newer worker."""
OLDEST_RECORDS = 3
"""The oldest version of records that this version works on."""
TAKEN = "lowtide.taken"
"""The message by which a handler without this package says that a delivery is handled."""

ARRIVED = "lowtide.arrived"
"""The message by which the ticker says that singles of producers without this package have arrived."""


class Queue(StrEnum):
    """The two queues, so that their workers scale apart."""

    JOBS = "lowtide.jobs"
    """Network-bound stages: run them on threads."""
    RESULTS = "lowtide.results"
    """Collect and deliver: run them on processes."""


class Stage(StrEnum):
    """The stages, in the order the data flows; the value is the Celery task's name."""

    GATHER = "lowtide.gather"
    SUBMIT = "lowtide.submit"
    CREATE = "lowtide.create"
    POLL = "lowtide.poll"
    COLLECT = "lowtide.collect"
    DELIVER = "lowtide.deliver"
    SETTLE = "lowtide.settle"
    CLEAN = "lowtide.clean"
    DELETE = "lowtide.delete"
    NOTIFY = "lowtide.notify"
    SWEEP = "lowtide.sweep"

    @property
    def queue(self) -> Queue:
        """The queue in which its messages wait."""
        return Queue.RESULTS if self in {Stage.COLLECT, Stage.DELIVER} else Queue.JOBS


def arguments(member: str, token: int) -> dict[str, Any]:
    """The keyword arguments of the message for a member of the clock. Raises `ValueError` for a name that is none."""
    about = Member.parse(member)
    message: dict[str, Any] = {"v": VERSION}
    if about.batch:
        message["batch_id"] = about.batch
    if about.job:
        message["job_id"] = about.job
    if about.kind is MemberKind.SEGMENT:
        message["segment"] = about.number
    if about.event:
        message["event"] = about.event
    return message | {"token": token}


def shown(member: Member) -> str:
    """The arguments as Flower shows and finds them: the id that matters first, in few characters."""
    match member.kind:
        case MemberKind.SEGMENT:
            return f"{{'job_id': '{member.job}', 'seg': {member.number}}}"
        case MemberKind.JOB:
            return f"{{'job_id': '{member.job}'}}"
        case MemberKind.BATCH:
            return f"{{'batch_id': '{member.batch}'}}"
        case MemberKind.EVENT:
            return f"{{'batch_id': '{member.batch}', 'event': '{member.event}'}}"
        case MemberKind.SWEEP:
            return "{}"


def member(message: dict[str, Any]) -> Member:
    """The member that a message is about. Raises `ValueError` for a message that is not one of Lowtide's."""
    batch_id, job, segment = (message.get(name) for name in ("batch_id", "job_id", "segment"))
    if not isinstance(batch_id, str) or not BATCH_ID.fullmatch(batch_id):
        raise ValueError(f"batch_id is not a batch id: {batch_id!r:.80}")
    if (event := message.get("event")) is not None:
        return Member.parse(Member.of_event(batch_id, event))
    if job is None:
        return keys.batch_member(batch_id)
    if not isinstance(job, str) or split_job_id(job)[0] != batch_id:
        raise ValueError(f"job_id is not a job of {batch_id}: {job!r:.80}")
    if segment is None:
        return keys.job_member(job)
    if not isinstance(segment, int) or isinstance(segment, bool) or segment < 0:
        raise ValueError(f"segment is not a number: {segment!r:.80}")
    return keys.segment_member(job, segment)


_senders: dict[str, Celery] = {}
_making = threading.Lock()
_IMPORT_TRIES = 50
_IMPORT_PAUSE_SECONDS = 0.1


def sender(broker_url: str) -> Celery:
    """A Celery app that only sends, JSON only, one per broker and process; all it needs to send is imported.

    Safe to call from many threads at once. Raises `ImportError` where Celery cannot be imported.
    """
    with _making:
        if broker_url not in _senders:
            _senders[broker_url] = _new_sender(broker_url)
        return _senders[broker_url]


def _new_sender(broker_url: str) -> Celery:
    """Imports Celery and makes the app.

    Celery and kombu put another module in the place of their own while they are imported, so a thread that comes
    across another's import, which no lock of ours can prevent, finds half of them. A moment later they are whole.
    """
    for _ in range(_IMPORT_TRIES):
        try:
            return _built(broker_url)
        except (ImportError, AttributeError):
            time.sleep(_IMPORT_PAUSE_SECONDS)
    return _built(broker_url)


def _built(broker_url: str) -> Celery:
    from celery import Celery  # deferred: a quarter of a second that reading a status need not pay

    app = Celery("lowtide-sender", set_as_current=False)
    config = broker_config(broker_url)
    transport = {"socket_connect_timeout": 5, "socket_timeout": 10, "max_retries": 3}
    app.conf.update(
        config,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_timeout=5,
        broker_transport_options=transport | config.get("broker_transport_options", {}),
    )
    # What sending imports by itself at the first time: the transport of the broker's URL, and what makes messages.
    app.finalize()
    with app.connection_for_write() as connection:
        _ = connection.transport_cls, app.amqp.queues, app.amqp.routes, app.amqp.send_task_message
    return app


def delivered(delivery_id: str) -> Member:
    """The member of the segment or the batch event that is delivered. Raises `ValueError` for what is no delivery id.

    Each batch event of a batch's progress has a number of its own behind it.
    """
    first, _, rest = delivery_id.partition(":")
    if _SEGMENT.fullmatch(rest):
        split_job_id(first)
        return keys.segment_member(first, int(rest))
    name, _, number = rest.partition(":")
    if number and not (name == EventName.PROGRESS and _SEGMENT.fullmatch(number)):
        raise ValueError(f"not a delivery id: {delivery_id!r:.80}")
    return Member.parse(Member.of_event(first, name))
