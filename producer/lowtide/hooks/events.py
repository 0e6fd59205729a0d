"""Events: the job that a verified body names, in whichever of the known forms.

The provider documents the form of an event loosely, and no part of it is trusted. So each name that may be the job's
is tried, and a name that is of no job of Lowtide's does nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from lowtide.hooks.signatures import Refused
from lowtide.protocol import WEBHOOK_METADATA_KEY, split_job_id

_ENDS = frozenset({"batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled"})
_MOST_NAME_CHARS = 200
_PREDICTION_JOB = re.compile(rb"batchPredictionJobs/([0-9]{1,30})", re.ASCII)
_PUSHED = "message of Pub/Sub"
_MOST_JOBS = 16
"""Jobs that one push may name."""
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_metadata = msgspec.json.Decoder(dict[str, object]).decode
_decode_text = msgspec.json.Decoder(str).decode


class Hint(NamedTuple):
    """The job that an event is about. One without any id and name is about no job, such as a test event."""

    kind: str
    """The provider's name for what has happened."""
    job: str
    """Lowtide's id of the job, as its webhook was given it; "" where the event has none."""
    names: tuple[str, ...]
    """Last parts of the names that the provider may have for the job."""


def read_event(body: bytes) -> Hint:
    """Returns the job of an event of the Gemini Developer API; none for an event that is not the end of a batch.

    Raises `Refused` for a body that is no event.
    """
    try:
        event = _decode_object(body)
        kind = _decode_text(event["type"])
        if kind not in _ENDS:
            return Hint(kind, "", ())
        data = _decode_object(event["data"])
    except (KeyError, ValueError, RecursionError):
        raise Refused("the body is not an event: it has no type, or no data") from None
    job = next((job for place in (data, event) if (job := _named_job(place))), "")
    names = [name for field in ("id", "name", "output_file_uri") for name in _names(_text(data.get(field)))]
    return Hint(kind, job, tuple(dict.fromkeys(names)))


def _named_job(place: dict[str, msgspec.Raw]) -> str:
    for field in ("user_metadata", "userMetadata"):
        try:
            job = _decode_metadata(place.get(field, b"")).get(WEBHOOK_METADATA_KEY)
            split_job_id(str(job))
        except (ValueError, RecursionError):
            continue
        return str(job)
    return ""


def _text(raw: msgspec.Raw | None) -> str:
    try:
        return "" if raw is None else _decode_text(raw)
    except ValueError:
        return ""


def _names(text: str) -> Iterator[str]:
    """The names that a text may mean: `batches/x`, `batch_x` and `files/batch-x` are all of the batch `x`."""
    last = text.rpartition("/")[2]
    if 0 < len(last) <= _MOST_NAME_CHARS:
        yield last
        if last.startswith(("batch_", "batch-")) and len(last) > len("batch_"):
            yield last[len("batch_") :]


class _Message(msgspec.Struct):
    data: str = ""
    id_camel: str = msgspec.field(default="", name="messageId")
    id_snake: str = msgspec.field(default="", name="message_id")
    attributes: dict[str, str] = {}


class _Push(msgspec.Struct):
    message: _Message


_decode_push = msgspec.json.Decoder(_Push).decode


class Push(NamedTuple):
    """A message of Pub/Sub: its id, and the jobs of Vertex AI that it names; one hint of no job where it names none."""

    id: str
    hints: tuple[Hint, ...]


def read_push(body: bytes) -> Push:
    """Returns a pushed message of Pub/Sub. Raises `Refused` for a body that is none.

    The content is an audit log entry, or what else a subscription is given: every batch prediction job that is named in
    it counts.
    """
    try:
        message = _decode_push(body).message
        text = base64.b64decode(message.data, validate=True) + " ".join(message.attributes.values()).encode()
    except (ValueError, RecursionError):
        raise Refused("the body is not a message of Pub/Sub") from None
    identity = message.id_camel or message.id_snake
    if not 0 < len(identity) <= _MOST_NAME_CHARS:
        raise Refused("the message of Pub/Sub has no id")
    jobs = list(dict.fromkeys(found.decode() for found in _PREDICTION_JOB.findall(text)))[:_MOST_JOBS]
    return Push(identity, tuple(Hint(_PUSHED, "", (job,)) for job in jobs) or (Hint(_PUSHED, "", ()),))
