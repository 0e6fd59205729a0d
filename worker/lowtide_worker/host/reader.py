"""The reader: a filter between the broker and Celery on Lowtide's own queues.

It parses the bytes of a message, accepts exactly the messages that workers run, and writes a new message from the
parsed values. No header, property or argument that the reader does not know reaches Celery's machinery.
"""

from __future__ import annotations

import binascii
import re
import uuid
from typing import Annotated, Any

import msgspec

from lowtide.protocol import ARRIVED, SWEEP_MEMBER, TAKEN, Queue, Stage, delivered, member, shown

MAX_MESSAGE_BYTES = 64 * 1024
"""Longest message that is parsed; those of workers and producers have less than one kilobyte."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
_Token = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]

_STAGES = {stage.value: stage for stage in Stage}
_PRINTABLE = re.compile(r"[!-~]+")
_UNREADABLE = (ValueError, RecursionError)
"""All errors that a decoder raises on any bytes: `msgspec.DecodeError` and `binascii.Error` are `ValueError`s."""


class Unacceptable(ValueError):
    """A message that workers do not accept, with the reason in one line."""


class _Headers(msgspec.Struct, frozen=True):
    task: _Id
    id: _Id


class _Properties(msgspec.Struct, frozen=True):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct, frozen=True, rename="kebab"):
    body: str
    content_type: str
    headers: _Headers
    content_encoding: str | None = None
    properties: _Properties = _Properties()


class _Work(msgspec.Struct, frozen=True):
    """Arguments of a stage: see `lowtide.protocol.messages.arguments`."""

    v: _Number = 0
    batch_id: _Id | None = None
    job_id: _Id | None = None
    segment: _Number | None = None
    event: _Id | None = None
    token: _Token = 0


class _Taken(msgspec.Struct, frozen=True):
    """Arguments of the message that a delivery is handled."""

    delivery_id: _Id
    v: _Number = 0


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
# Positional arguments come first; what Celery adds after the named ones (callbacks, chords) is dropped.
_decode_work = msgspec.json.Decoder(tuple[list[msgspec.Raw], _Work, msgspec.Raw]).decode
_decode_taken = msgspec.json.Decoder(tuple[list[msgspec.Raw], _Taken, msgspec.Raw]).decode
_encode = msgspec.json.encode


def accepted(raw: bytes, queue: Queue) -> bytes:
    """The message that Celery is given in place of `raw`. Raises `Unacceptable`."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise Unacceptable(f"the message has {len(raw)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        # The decoder skips what it does not need, so the encoding is checked separately.
        envelope = _decode_envelope(str(raw, "utf-8"))
    except _UNREADABLE as error:
        raise Unacceptable(f"not a task message: {_short(error)}") from None
    headers = envelope.headers
    if not _PRINTABLE.fullmatch(headers.id):
        raise Unacceptable("not a task message: its id has characters beyond printable ASCII")
    body = _body(envelope)
    if headers.task == TAKEN:
        arguments, text = _taken(body)
    elif headers.task == ARRIVED:
        arguments, text = {}, "{}"
    elif headers.task in _STAGES:
        arguments, text = _work(_STAGES[headers.task], body)
    else:
        raise Unacceptable(f"unknown task {headers.task!r}")
    return _message(headers, arguments, text, queue)


def _body(envelope: _Envelope) -> bytes:
    if envelope.content_type != "application/json":
        raise Unacceptable(f"content type {envelope.content_type!r:.80} is not application/json")
    if (envelope.content_encoding or "utf-8").lower() != "utf-8":
        raise Unacceptable(f"content encoding {envelope.content_encoding!r:.80} is not utf-8")
    match (envelope.properties.body_encoding or "utf-8").lower():
        case "utf-8":
            return envelope.body.encode()
        case "base64":
            try:
                return binascii.a2b_base64(envelope.body)
            except ValueError as error:
                raise Unacceptable(f"the body is not base64: {error}") from None
        case other:
            raise Unacceptable(f"body encoding {other!r:.80} is neither base64 nor utf-8")


def _work(stage: Stage, body: bytes) -> tuple[dict[str, Any], str]:
    work: _Work = _arguments(_decode_work, body)
    if stage is Stage.SWEEP:
        # There is one sweep for all batches: ids mean nothing.
        work, about = _Work(v=work.v, token=work.token), SWEEP_MEMBER
    else:
        try:
            about = member(msgspec.structs.asdict(work))
        except ValueError as error:
            raise Unacceptable(str(error)) from None
    return {name: value for name, value in msgspec.structs.asdict(work).items() if value is not None}, shown(about)


def _taken(body: bytes) -> tuple[dict[str, Any], str]:
    taken: _Taken = _arguments(_decode_taken, body)
    try:
        delivered(taken.delivery_id)
    except ValueError as error:
        raise Unacceptable(str(error)) from None
    return msgspec.structs.asdict(taken), f"{{'delivery_id': '{taken.delivery_id}'}}"


def _arguments(decode: Any, body: bytes) -> Any:
    try:
        positional, named, _ = decode(str(body, "utf-8"))
    except _UNREADABLE as error:
        raise Unacceptable(f"not the arguments of this task: {_short(error)}") from None
    if positional:
        raise Unacceptable("arguments are named, not positional")
    return named


def _message(headers: _Headers, arguments: dict[str, Any], text: str, queue: Queue) -> bytes:
    return _encode(
        {
            "body": _encode([[], arguments, {}]).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "lang": "py",
                "task": headers.task,
                "id": headers.id,
                "root_id": headers.id,
                "argsrepr": "()",
                "kwargsrepr": text,
            },
            "properties": {
                "correlation_id": headers.id,
                # A restored message goes back to the queue it was read from; each reading has its own tag.
                "delivery_info": {"exchange": "", "routing_key": queue},
                "delivery_tag": str(uuid.uuid4()),
                "priority": 0,
            },
        }
    )


def _short(error: Exception) -> str:
    return f"{error}"[:200]
