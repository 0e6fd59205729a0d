"""The key of a line: where `key_field` says that it is, or what to write where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowtide import openai
from lowtide.errors import refuse
from lowtide.shaping.items import LINE_FIELDS, as_item

_LINE_NUMBER = "#"
_KEY_BITS = 10_000
_OPENAI_FIELDS = frozenset({"custom_id", "metadata", "method", "url", "body"})
_ENDS = ("id", "key", "sku")
_MAX_SHOWN = 60
"""Characters of a field's name that an error shows whole."""


def keyed(item: object, key_field: str, position: int) -> object:
    """Returns an item with the key that `key_field` names; a `Request` has one already and is returned as it is.

    - `key_field`: a field of the item, a dotted path, or `#` for the item's number.
    - `position`: the place (0-based) of the item in the input; its number is one more.

    Raises `InvalidRequest` (without its position) for an item without the field.
    """
    item = as_item(item)
    if not isinstance(item, Mapping):
        return item
    key = str(position + 1) if key_field == _LINE_NUMBER else _found(item, key_field)
    known, own = (_OPENAI_FIELDS, "custom_id") if openai.is_line(item) else (LINE_FIELDS, "key")
    # A field that held the key and has no meaning in a request is left out.
    top = key_field if key_field in item else key_field.partition(".")[0]
    return {name: value for name, value in item.items() if name != top or name in known} | {own: key}


def _found(item: Mapping[str, Any], key_field: str) -> object:
    if item.get(key_field) is not None:
        return item[key_field]
    value: Any = item
    for step in key_field.split("."):
        if not isinstance(value, Mapping) or value.get(step) is None:
            refuse("missing, and key_field names it", key_field)
        value = value[step]
    return value


def key_of(item: object) -> str | None:
    """Returns the key of an item that is refused, for the error; None where it has none that can be shown."""
    key = item.get("key") if isinstance(item, Mapping) else getattr(item, "key", None)
    if not isinstance(key, str):
        return None
    try:
        key.encode()
    except UnicodeEncodeError:  # half a character, which no output can hold
        return None
    return key


def key_text(key: object) -> object:
    """Returns the decimal text of an integer, and any other value as it is. Raises `InvalidRequest`."""
    if type(key) is not int:
        return key
    if key.bit_length() > _KEY_BITS:  # Python writes no longer numbers as text
        refuse("a number with thousands of digits; write it as text", "key")
    return str(key)


def missing_key(item: Mapping[str, Any]) -> str:
    """Returns what to write where an item has no key: the `key_field` that would find one."""
    field = _likely(item)
    if field is None:
        return (
            'missing; give each request a key, name the field that has it by key_field="FIELD", or number the requests '
            'by key_field="#"'
        )
    return f'missing; to use {field}, submit with key_field="{field}"'


def _likely(item: Mapping[str, Any]) -> str | None:
    """The field that looks like a key: one that is called like one, and has a string or an integer."""
    found = [str(name) for name, value in item.items() if name not in LINE_FIELDS and type(value) in (str, int)]
    metadata = item.get("metadata")
    if isinstance(metadata, Mapping):
        found += [f"metadata.{name}" for name, value in metadata.items() if isinstance(value, str)]
    likely = [name for name in found if len(name) <= _MAX_SHOWN and name.lower().endswith(_ENDS)]
    return min(likely, key=len, default=None)
