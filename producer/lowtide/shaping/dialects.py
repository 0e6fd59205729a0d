"""The names each provider knows for what stands beside the contents, and what the SDK does to some of the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lowtide.errors import refuse
from lowtide.shaping import fields
from lowtide.shaping.contents import as_mapping, gathered
from lowtide.shaping.response_schema import response_schema


class Names(NamedTuple):
    """The names one provider knows, each with the one it has on the wire."""

    generation: Mapping[str, str]
    """Of the SDK's `config`, what belongs under `generationConfig`."""
    hoisted: Mapping[str, str]
    """Of the SDK's `config`, what stands beside it."""
    request: Mapping[str, str]
    """Of a REST request."""
    rest_generation: Mapping[str, str]
    """Of its `generationConfig`."""
    refused: Mapping[str, str]
    """What another provider knows, with what to say about it."""
    converted: Mapping[str, Callable[[Any], Any]]
    """What the SDK does to a field's value on its way to the wire."""


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


def _image_config(value: Any) -> Any:
    config, options = {}, {}
    for name, inner in as_mapping(value, "config.image_config").items():
        if (option := _IMAGE_OPTIONS.get(name)) is None:
            config[name] = inner
        elif inner is not None:
            options[option] = inner
    return {"imageOutputOptions": options, **config} if options else config


_IMAGE_OPTIONS = {
    "output_mime_type": "mimeType",
    "outputMimeType": "mimeType",
    "output_compression_quality": "compressionQuality",
    "outputCompressionQuality": "compressionQuality",
}
_BESIDE_GENERATION = frozenset({"modelArmorConfig", "outputConfig"})
_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "systemInstruction": _system_instruction,
    "responseSchema": response_schema,
    "tools": _tools,
    "speechConfig": _speech_config,
    "cachedContent": _cached_content,
}
GEMINI = Names(
    generation=fields.GENERATION,
    hoisted={**fields.HOISTED, **fields.SYSTEM_INSTRUCTION},
    request=fields.REQUEST,
    rest_generation=fields.GENERATION,
    refused=dict.fromkeys(fields.VERTEX_ONLY, "only Vertex AI knows this field"),
    converted=_CONVERTED,
)


def _vertex_names() -> Names:
    """What the SDK's converters for Vertex AI say, and the fields its batches do not support."""
    gemini = GEMINI
    renamed = {"modelSelectionConfig": "modelConfig", "generationOutputConfig": "outputConfig"}
    sdk = {name: renamed.get(camel, camel) for name, camel in fields.VERTEX_ONLY.items()}
    rest = {name: camel for name, camel in fields.VERTEX_ONLY.items() if camel not in renamed}
    rest |= {camel: camel for camel in renamed.values()}
    rest |= {"model_config": "modelConfig", "output_config": "outputConfig"}
    reasons = {
        "store": "only the Gemini Developer API knows this field",
        "enableEnhancedCivicAnswers": "only the Gemini Developer API knows this field",
        "cachedContent": "Vertex AI's batches take no cached content",
    }

    def without(names: Mapping[str, str]) -> dict[str, str]:
        return {name: camel for name, camel in names.items() if camel not in reasons}

    def these(names: Mapping[str, str], *, beside: bool) -> dict[str, str]:
        return {name: wire for name, wire in names.items() if (wire in _BESIDE_GENERATION) is beside}

    return Names(
        generation=without(gemini.generation) | these(sdk, beside=False),
        hoisted=without(gemini.hoisted) | these(sdk, beside=True),
        request=without(gemini.request) | these(rest, beside=True),
        rest_generation=without(gemini.rest_generation) | these(rest, beside=False),
        refused={
            name: reasons[camel] for name, camel in {**gemini.generation, **gemini.hoisted}.items() if camel in reasons
        },
        converted={**_CONVERTED, "imageConfig": _image_config},
    )


VERTEX = _vertex_names()
