"""Messages that no client should send: good ones with something changed anywhere, from a seed."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from lowtide.protocol import TAKEN, Queue, Stage

LONE_SURROGATE = "\ud800"


class Literal(str):
    """JSON that Python's encoder would not write."""


_DEEP = Literal("[" * 3000 + "]" * 3000)
_ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    10**30,
    1.5,
    1.0,
    "",
    "0",
    "1",
    "x",
    "\n",
    "\0",
    "é" * 40,
    "٣",
    "x" * 300,
    "x" * 70_000,
    LONE_SURROGATE,
    "../../etc/passwd",
    "lowtide.sweep",
    "utf-8",
    "base64",
    "null",
    "2026-01-01T00:00:00",
    [],
    [[]],
    ["x"],
    [None, None],
    {},
    {"x": "y"},
    {"__type__": "datetime", "__value__": 5},
    {"task": "x", "id": "y"},
    {"__type__": "uuid", "__value__": {"hex": []}},
    Literal("1e400"),
    Literal("-1e400"),
    Literal("NaN"),
    _DEEP,
    Literal("1" * 5000),
    Literal('"\\ud83d\\u0041"'),
    Literal('{"a":1,"a":2}'),
]
_HEADERS = [
    "lang",
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "shadow",
    "eta",
    "expires",
    "timelimit",
    "retries",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "meth",
    "redelivered",
    "callbacks",
    "chord",
]
_PROPERTIES = [
    "correlation_id",
    "reply_to",
    "delivery_mode",
    "delivery_info",
    "priority",
    "body_encoding",
    "delivery_tag",
    "content_type",
    "type",
]
_ENVELOPE = ["body", "content-encoding", "content-type", "headers", "properties", "redelivered"]
_DELIVERY = ["exchange", "routing_key", "priority", "redelivered", "consumer_tag"]
_ARGUMENTS = ["v", "batch_id", "job_id", "segment", "token", "delivery_id", "self", "args", "x"]
_EMBEDDED = ["callbacks", "errbacks", "chain", "chord"]
_TYPES = [
    "application/json",
    "application/x-python-serialize",
    "application/data",
    "application/x-yaml",
    "text/plain",
    "application/x-msgpack",
    "application/JSON",
    "binary/octet-stream",
]
_ENCODINGS = ["utf-8", "UTF-8", "binary", "latin-1", "utf-16", "base64", "rot13", "idna", "zlib", "gzip", "unknown"]


def messages(seed: int, count: int, batch_id: str) -> Iterator[tuple[Queue, bytes]]:
    """Mutated messages, some about a batch that there is; the same for the same arguments."""
    chance = random.Random(seed)
    for number in range(count):
        yield chance.choice(list(Queue)), _message(chance, f"hostile-{number}", batch_id)


def _message(chance: random.Random, task_id: str, batch_id: str) -> bytes:
    task = chance.choice([*Stage, TAKEN])
    batch = chance.choice([batch_id, "b0nobody"])
    arguments: dict[str, Any] = {"v": 1, "token": chance.choice([0, 1, 7])}
    if task == TAKEN:
        arguments = {"v": 1, "delivery_id": f"{batch}-1:0"}
    elif task != Stage.SWEEP:
        arguments["batch_id"] = batch
        if task not in (Stage.SUBMIT, Stage.DELETE):
            arguments["job_id"] = f"{batch}-1"
        if task == Stage.DELIVER:
            arguments["segment"] = 0
    body: Any = [[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    headers = {"lang": "py", "task": str(task), "id": task_id, "root_id": task_id, "retries": 0}
    delivery = {"exchange": "", "routing_key": "lowtide.jobs"}
    properties = {
        "correlation_id": task_id,
        "delivery_mode": 2,
        "delivery_info": delivery,
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": task_id,
    }
    envelope: dict[str, Any] = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    places: list[tuple[Any, list[Any]]] = [
        (headers, _HEADERS),
        (properties, _PROPERTIES),
        (envelope, _ENVELOPE),
        (delivery, _DELIVERY),
        (arguments, _ARGUMENTS),
        (body[2], _EMBEDDED),
        (body, [0, 1, 2]),
    ]
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        _change(chance, *chance.choice(places))
    if chance.random() < 0.1:
        envelope["content-type"] = chance.choice(_TYPES)
    if chance.random() < 0.1:
        envelope["content-encoding"] = chance.choice(_ENCODINGS)
    if chance.random() < 0.1 and isinstance(envelope.get("properties"), dict):
        properties["body_encoding"] = chance.choice(_ENCODINGS)
    envelope.setdefault("body", _encoded(chance, body, properties.get("body_encoding")))
    return _bytes(chance, _json(envelope))


def _change(chance: random.Random, where: Any, names: list[Any]) -> None:
    if isinstance(where, list):
        where[chance.choice(names)] = chance.choice(_ODD)
    elif chance.random() < 0.25:
        where.pop(chance.choice(names), None)
    else:
        where[chance.choice(names)] = chance.choice(_ODD)


def _encoded(chance: random.Random, body: Any, encoding: Any) -> Any:
    raw = _bytes(chance, _json(body))
    if encoding == "base64" and chance.random() < 0.95:
        text = base64.b64encode(raw).decode()
        return text if chance.random() < 0.95 else text[: chance.randrange(len(text))]
    return raw.decode(errors="replace")


def _bytes(chance: random.Random, raw: bytes) -> bytes:
    """Once in a while, other bytes."""
    at = chance.randrange(len(raw))
    match chance.randrange(40):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :]
        case 2:
            return chance.randbytes(chance.randrange(200))
        case 3:
            return (
                raw[:at]
                + chance.choice([b"\xff", b"\0", b"\xed\xa0\x80", b"[" * 5000, b'"', b"\xef\xbb\xbf"])
                + raw[at:]
            )
        case 4:
            return raw * 2
        case 5:
            return chance.choice(
                [b"", b"null", b"[]", b"{}", b"0", b'""', b"\x80\x04N.", b"{" * 100_000, b"x" * 100_000]
            )
        case _:
            return raw


def _json(value: Any) -> bytes:
    """As `json.dumps`, but for literals, and with lone surrogates as the escapes that they are."""
    literals: dict[str, Literal] = {}

    def marked(inner: Any) -> Any:
        if isinstance(inner, Literal):
            literals[f'"literal {len(literals)}"'] = inner
            return f"literal {len(literals) - 1}"
        if isinstance(inner, dict):
            return {name: marked(one) for name, one in inner.items()}
        return [marked(one) for one in inner] if isinstance(inner, list) else inner

    text = json.dumps(marked(value))
    for mark, literal in literals.items():
        text = text.replace(mark, literal)
    return text.encode()
