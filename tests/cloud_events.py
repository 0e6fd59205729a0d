"""The rules of CloudEvents 1.0 for an event in structured mode over HTTP, with JSON as its format.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, formats/json-format.md and
bindings/http-protocol-binding.md beside it
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_URI_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;.*)?", re.ASCII)
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_MOST_NAME_CHARS = 20
_MOST_BYTES = 64 << 10
"""The size that every intermediary forwards."""
_NO_ATTRIBUTES = frozenset({"data", "data_base64"})


def violations(headers: Mapping[str, str], body: bytes) -> list[str]:
    """Returns the rules that a request breaks. `headers` have lower-case names."""
    return [*_of_request(headers, body), *_of_event(json.loads(body.decode()))]


def _of_request(headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    if media_type != "application/cloudevents+json":
        yield f"the content type is {media_type}"
    if binary := [name for name in headers if name.startswith("ce-")]:
        yield f"{binary} belong to binary mode"
    if len(body) > _MOST_BYTES:
        yield f"it has {len(body)} bytes"


def _of_event(event: Mapping[str, Any]) -> Iterator[str]:
    for name in ("id", "source", "specversion", "type"):
        if not (isinstance(event.get(name), str) and event[name]):
            yield f"{name} is required, and not empty"
    if event.get("specversion") != "1.0":
        yield "specversion is not 1.0"
    for name, form in (("source", _URI_REFERENCE), ("time", _TIME), ("datacontenttype", _MEDIA_TYPE)):
        if name in event and not form.fullmatch(event[name]):
            yield f"{name} has another form: {event[name]}"
    if event.get("subject") == "":
        yield "subject is empty"
    for name, value in event.items():
        if name in _NO_ATTRIBUTES:
            continue
        if not _ATTRIBUTE.fullmatch(name) or len(name) > _MOST_NAME_CHARS:
            yield f"{name} is no name of an attribute"
        if not isinstance(value, str | int | bool):
            yield f"{name} has no type of an attribute"
        if isinstance(value, str) and _NO_TEXT.search(value):
            yield f"{name} has characters that a string must not have"
    if event.keys() >= _NO_ATTRIBUTES:
        yield "data comes twice"
