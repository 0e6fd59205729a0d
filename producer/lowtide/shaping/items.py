"""The items that users submit, and the fields that a line has beside its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.errors import refuse
from lowtide.models import Request
from lowtide.shaping import fields

LINE_FIELDS = frozenset({"key", "metadata", "model", "request", "contents", "config"})
"""The fields of a line in the SDK's inline shape or the REST line shape."""
_OF_REQUESTS = frozenset(
    {*fields.REQUEST, *fields.GENERATION, "content", "task_type", "taskType", "embed_content_config"}
    | {"embedContentConfig", "output_dimensionality", "outputDimensionality"}
) - {"model"}
_SCALARS = (str, bool, int, float)


def as_item(item: object) -> object:
    """Returns a request of the SDK (`types.InlinedRequest`) as a mapping, and anything else as it is."""
    if isinstance(item, (dict, Request, type)) or not hasattr(item, "model_dump"):
        return item
    found = dict(item) if hasattr(item, "__iter__") else {}
    return found if "contents" in found else item


def with_columns(item: Mapping[str, Any], metadata: Any) -> Any:
    """Returns the metadata of a line, with the fields that a user has beside `request`, as the columns of a table.

    Raises `InvalidRequest` for a field that belongs into the request, and for one that no metadata can hold.
    """
    names = item.keys() - LINE_FIELDS
    if not names:
        return metadata
    if "request" not in item:
        name = min(names, key=str)
        refuse(_extra_field(name), str(name))
    if not isinstance(metadata, (Mapping, type(None))):
        return metadata
    found = dict(metadata or {})
    for name in sorted(names, key=str):
        value = item[name]
        if name in _OF_REQUESTS:
            refuse("a field of a request; write it in request", str(name))
        if name in found:
            refuse("in metadata too; give it once", str(name))
        if value is not None and not isinstance(value, _SCALARS):
            refuse(
                "neither text nor a number nor true or false, so it cannot come back as metadata; leave it out",
                str(name),
            )
        if value is not None:
            found[name] = value if isinstance(value, str) else _as_text(value, str(name))
    return found


def _as_text(value: float, where: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, ValueError) as error:
        refuse(f"a number that JSON cannot hold: {error}", where)


def _extra_field(name: object) -> str:
    """Returns what to do about a field beside `contents` that a line does not have."""
    if near := fields.nearest(str(name), LINE_FIELDS):
        return f"unknown field; did you mean {near}?"
    if name in _OF_REQUESTS:
        return 'unknown field; put it under config, or under request in the REST shape: {"key": ..., "request": {...}}'
    return (
        "unknown field; remove it, or put it under metadata as a string, and the result has it again; a line holds "
        "key, metadata and either request or contents with config"
    )
