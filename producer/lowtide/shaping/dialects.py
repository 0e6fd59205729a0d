"""The names one provider has for the fields beside the contents, and the SDK's conversions of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lowtide.errors import refuse
from lowtide.shaping.contents import gathered
from lowtide.shaping.response_schema import response_schema


class Names(NamedTuple):
    """The fields that one provider knows: each spelling that users may write, with the name on the wire."""

    generation: Mapping[str, str]
    """Fields of the SDK's `config` that belong under `generationConfig`."""
    hoisted: Mapping[str, str]
    """Fields of the SDK's `config` that belong beside `generationConfig`."""
    request: Mapping[str, str]
    """Fields of a REST request."""
    rest_generation: Mapping[str, str]
    """Fields of a REST request's `generationConfig`."""
    refused: Mapping[str, str]
    """Fields that this provider does not take, each with the reason that the user is given."""
    converted: Mapping[str, Callable[[Any], Any]]
    """Conversions of values given in the SDK's `config`, by the field's name on the wire."""


def _system_instruction(value: Any) -> dict[str, Any]:
    found = gathered(value, "config.system_instruction")
    if len(found) != 1:
        refuse(f"expected one content, got {len(found)}", "config.system_instruction")
    return found[0]


def _tools(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        refuse(f"expected a list, got {type(value).__name__}", "config.tools")
    if any(callable(tool) for tool in value):
        refuse("a batch cannot call Python functions; give a function declaration", "config.tools")
    return value


def _speech_config(value: Any) -> Any:
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": value}}} if isinstance(value, str) else value


def _cached_content(value: Any) -> Any:
    return f"cachedContents/{value}" if isinstance(value, str) and "/" not in value else value


SDK_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "systemInstruction": _system_instruction,
    "responseSchema": response_schema,
    "tools": _tools,
    "speechConfig": _speech_config,
    "cachedContent": _cached_content,
}
"""Conversions that the SDK does for every provider."""
