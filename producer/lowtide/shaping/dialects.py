"""The names one provider has for the fields beside the contents, and the SDK's conversions of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from lowtide.errors import refuse
from lowtide.shaping.contents import checked_content, gathered
from lowtide.shaping.response_schema import is_type, response_schema

Conversion: TypeAlias = "Callable[[Any, str], Any]"
"""Returns a value in the provider's form. The second argument is the field's path, for errors."""


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
    converted: Mapping[str, Conversion]
    """Conversions of values given in the SDK's `config`, by the field's name on the wire."""
    in_both_shapes: Mapping[str, Conversion]
    """Conversions of values in a REST request's `generationConfig`, too; they are among those of `converted`."""


def _system_instruction(value: Any, where: str) -> dict[str, Any]:
    found = gathered(value, where, checked_content)
    if len(found) != 1:
        refuse(f"expected one content, got {len(found)}", where)
    return found[0]


def _tools(value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        refuse(f"expected a list, got {type(value).__name__}", where)
    if any(callable(tool) for tool in value):
        refuse("a batch cannot call Python functions; give a function declaration", where)
    return value


def _speech_config(value: Any, _where: str) -> Any:
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": value}}} if isinstance(value, str) else value


def _cached_content(value: Any, _where: str) -> Any:
    return f"cachedContents/{value}" if isinstance(value, str) and "/" not in value else value


def _json_schema(value: Any, where: str) -> Any:
    if is_type(value):
        refuse(
            "a type of Python; give its JSON schema, as a model's model_json_schema(), or give it as response_schema",
            where,
        )
    return value


def schemas_in(words: frozenset[str]) -> Mapping[str, Conversion]:
    """Returns the conversions of response schemas to a dialect with these keywords."""
    return {
        "responseSchema": lambda value, where: response_schema(value, where, words),
        "responseJsonSchema": _json_schema,
    }


SDK_CONVERSIONS: Mapping[str, Conversion] = {
    "systemInstruction": _system_instruction,
    "tools": _tools,
    "speechConfig": _speech_config,
    "cachedContent": _cached_content,
}
"""Conversions that the SDK does for every provider."""
