"""One response out of two: the first has the beginning of an answer, and the second its continuation.

Objects are merged field by field. Lists are joined, so each part of the content stays as it came. Token counts are
added. Candidates are merged by position. Of everything else the later value is kept, and the reason for the end is that
of the later response. Values are copied as bytes: only what is merged is decoded.

Source: `merge_continuation_responses` of google-genai does the same with the SDK's own types.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_Object = dict[str, msgspec.Raw]

_OF_THE_END = ("finishReason", "finishMessage", "continuationToken")
_decode_object = msgspec.json.Decoder(_Object).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_count = msgspec.json.Decoder(int, strict=False).decode
_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


def has_candidate(response: msgspec.Raw) -> bool:
    """Returns whether a response has a candidate. Raises `msgspec.DecodeError` for one that cannot be decoded."""
    return _is(response, b"{") and bool(_list(_decode_object(response).get("candidates")))


def merged(earlier: msgspec.Raw, later: msgspec.Raw) -> msgspec.Raw:
    """Returns the response with the answers of both. Raises `msgspec.DecodeError` if one cannot be decoded."""
    return _merged("", earlier, later)


def _merged(name: str, earlier: msgspec.Raw, later: msgspec.Raw) -> msgspec.Raw:
    if _is(later, b"n"):
        return earlier
    if _is(earlier, b"{") and _is(later, b"{"):
        return _raw(_fields(_decode_object(earlier), _decode_object(later)))
    if _is(earlier, b"[") and _is(later, b"["):
        return _raw(_items(name, _decode_list(earlier), _decode_list(later)))
    if name.endswith(("Count", "Sum")):
        return _sum(earlier, later)
    return later


def _fields(earlier: _Object, later: _Object) -> _Object:
    both = earlier.keys() & later.keys()
    return {**earlier, **later, **{name: _merged(name, earlier[name], later[name]) for name in both}}


def _items(name: str, earlier: list[msgspec.Raw], later: list[msgspec.Raw]) -> list[msgspec.Raw]:
    if name == "candidates":
        both = [_candidate(first, second) for first, second in zip(earlier, later, strict=False)]
        return [*both, *earlier[len(both) :], *later[len(both) :]]
    if name == "safetyRatings":
        # The later rating of a category is of the whole answer.
        return list(_by_field("category", earlier + later).values())
    if name.endswith("TokensDetails"):
        counts = _by_field("modality", earlier)
        for modality, second in _by_field("modality", later).items():
            first = counts.get(modality)
            counts[modality] = second if first is None else _merged("", first, second)
        return list(counts.values())
    return earlier + later


def _by_field(field: str, items: Iterable[msgspec.Raw]) -> dict[bytes, msgspec.Raw]:
    """The items by the value of one field; those without it by themselves."""
    return {bytes(_decode_object(item).get(field, item)) if _is(item, b"{") else bytes(item): item for item in items}


def _candidate(earlier: msgspec.Raw, later: msgspec.Raw) -> msgspec.Raw:
    if not (_is(earlier, b"{") and _is(later, b"{")):
        return later
    first, second = _decode_object(earlier), _decode_object(later)
    second = _shifted(first, second)
    return _raw(_fields({name: value for name, value in first.items() if name not in _OF_THE_END}, second))


def _shifted(earlier: _Object, later: _Object) -> _Object:
    """The later candidate, in which the evidence for its parts names them by their places in the whole answer."""
    evidence = later.get("groundingMetadata", _NULL)
    if not _is(evidence, b"{"):
        return later
    parts = _list(_object(earlier.get("content")).get("parts"))
    chunks = _list(_object(earlier.get("groundingMetadata")).get("groundingChunks"))
    fields = _decode_object(evidence)
    supports = [
        _raw(_support(_decode_any(support), len(parts), len(chunks)))
        for support in _list(fields.get("groundingSupports"))
    ]
    return later | {"groundingMetadata": _raw(fields | ({"groundingSupports": _raw(supports)} if supports else {}))}


def _support(support: Any, parts: int, chunks: int) -> Any:
    match support:
        case {"segment": dict(segment)}:
            at = segment.get("partIndex") or 0
            support = support | {"segment": segment | ({"partIndex": at + parts} if isinstance(at, int) else {})}
    match support:
        case {"groundingChunkIndices": [*indices]}:
            moved = [index + chunks if isinstance(index, int) else index for index in indices]
            support = support | {"groundingChunkIndices": moved}
    return support


def _sum(earlier: msgspec.Raw, later: msgspec.Raw) -> msgspec.Raw:
    try:
        total: Any = _decode_count(earlier) + _decode_count(later)
    except msgspec.ValidationError:
        total = _decode_any(earlier), _decode_any(later)
        if not all(isinstance(number, float | int) for number in total):
            return later
        try:
            total = sum(total)
        except OverflowError:
            return later
    # A whole number may have come as a string.
    return _raw(str(total) if _is(later, b'"') else total)


def _object(value: msgspec.Raw | None) -> _Object:
    return _decode_object(value) if value is not None and _is(value, b"{") else {}


def _list(value: msgspec.Raw | None) -> Sequence[msgspec.Raw]:
    return _decode_list(value) if value is not None and _is(value, b"[") else ()


def _is(value: msgspec.Raw, first: bytes) -> bool:
    """Whether JSON begins with this character, which depends on its type."""
    return memoryview(value)[:1] == first


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
