"""Contents and their parts: from what users write to the provider's REST shape.

Source: https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lowtide.errors import refuse
from lowtide.shaping import fields

_ROLES = frozenset({"user", "model", "function", ""})
_INSTRUCTION = "no role here; give its text as systemInstruction (config: system_instruction)"
_OTHER_ROLES = {
    "system": _INSTRUCTION,
    "developer": _INSTRUCTION,
    "assistant": "unknown role; write model",
    "tool": "unknown role; write user, with a functionResponse as its part",
    "user": "unknown role; write user in small letters",
    "model": "unknown role; write model in small letters",
}
_DATA = frozenset(
    {
        "text",
        "inlineData",
        "fileData",
        "functionCall",
        "functionResponse",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
        "audioTranscription",
    }
)
"""Fields of a part of which it has exactly one."""
_BESIDE_DATA = frozenset({"thought", "videoMetadata", "mediaResolution", "partMetadata"})
"""Fields of a part that say something about its data."""

_EXAMPLE = '{"role": "user", "parts": [{"text": ...}]}'


def given_contents(contents: Any) -> list[dict[str, Any]]:
    """Returns a request's contents in the REST shape. Raises `InvalidRequest`, as all functions here do."""
    if contents is None or (isinstance(contents, (str, list, tuple)) and not contents):
        refuse("missing or empty; a request needs contents", "contents")
    return gathered(contents, "contents", checked_turn)


def gathered(value: Any, where: str, checked: Callable[[Any, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns contents by the SDK's rule: adjacent strings and parts of one role become one content.

    Contents stay as they are; `checked` checks each.
    """
    if isinstance(value, str):
        return [{"role": "user", "parts": [{"text": value}]}]
    contents: list[dict[str, Any]] = []
    loose: list[dict[str, Any]] | None = None
    several = isinstance(value, (list, tuple))
    for index, item in enumerate(value if several else [value]):
        at = f"{where}[{index}]" if several else where
        if isinstance(item, (list, tuple)):
            contents.append(checked({"role": "user", "parts": item}, at))
            loose = None
            continue
        entry = {"text": item} if isinstance(item, str) else as_mapping(item, at)
        if "parts" in entry:
            contents.append(checked(entry, at))
            loose = None
            continue
        if unknown := [name for name in entry if name not in fields.PART]:
            refuse("unknown field of a part", f"{at}.{unknown[0]}")
        part = _part(entry, at)
        role = role_of(part)
        if loose is None or contents[-1]["role"] != role:
            loose = []
            contents.append({"role": role, "parts": loose})
        loose.append(part)
    return contents


def role_of(part: Mapping[str, Any]) -> str:
    """Returns the role of a part that is given without a content."""
    return "model" if "functionCall" in part or "function_call" in part else "user"


def checked_turn(value: Any, where: str) -> dict[str, Any]:
    """Returns one content of a conversation, checked with its role."""
    content = checked_content(value, where)
    role = content.get("role")
    # A role that is no text is left to the check of types.
    if isinstance(role, str) and role not in _ROLES:
        refuse(_OTHER_ROLES.get(role.lower(), f"unknown role {role!r:.40}; write user or model"), f"{where}.role")
    return content


def checked_content(value: Any, where: str) -> dict[str, Any]:
    """Returns one content with its parts, checked."""
    content = as_mapping(value, where)
    for name in content:
        if name not in fields.CONTENT:
            refuse("unknown field of a content", f"{where}.{name}")
    parts = content.get("parts")
    if isinstance(parts, dict):
        # The service, too, takes one part for a list of one.
        parts = [parts]
    if not isinstance(parts, (list, tuple)) or not parts:
        refuse("expected a non-empty list of parts", f"{where}.parts")
    return {**content, "parts": [_part(p, f"{where}.parts[{i}]") for i, p in enumerate(parts)]}


def _part(value: Any, where: str) -> dict[str, Any]:
    part = {"text": value} if isinstance(value, str) else as_mapping(value, where)
    if None in part.values():
        part = {name: inner for name, inner in part.items() if inner is not None}
    if not part:
        refuse("empty; a part needs a field such as text", where)
    if len(part) > 1 or "text" not in part:
        _check_data(part, where)
    if "text" in part and not isinstance(part["text"], str):
        refuse(f"expected a string, got {type(part['text']).__name__}", f"{where}.text")
    return part


def _check_data(part: Mapping[str, Any], where: str) -> None:
    names = [name for name in part if fields.PART.get(name) in _DATA]
    if len(names) > 1:
        refuse(f"{' and '.join(names)} in one part; give each a part of its own", f"{where}.{names[1]}")
    if not names and all(fields.PART.get(name) in _BESIDE_DATA for name in part):
        refuse("a part needs a field such as text, beside those that describe it", where)


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """Returns an object as it is, or an SDK object in its REST shape."""
    if isinstance(value, dict):
        return value
    plain = _plain_or_none(value)
    if not isinstance(plain, dict):
        refuse(f"expected an object such as {_EXAMPLE}, or one of the SDK, got {type(value).__name__}", where)
    if "uri" in plain and "mimeType" in plain:  # the SDK's File, as its upload returns it
        return {"fileData": {"fileUri": plain["uri"], "mimeType": plain["mimeType"]}}
    return plain


def plain(value: Any) -> Any:
    """Returns the REST shape of an SDK object. SDK objects are pydantic models, and their own dump is that shape."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return dump(mode="json", by_alias=True, exclude_none=True)


def _plain_or_none(value: Any) -> Any:
    try:
        return dict(value) if isinstance(value, Mapping) else plain(value)
    except (TypeError, ValueError):
        return None
