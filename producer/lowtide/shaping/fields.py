"""The provider's field names, so that a misspelt one fails at `submit` and not hours later.

One malformed line makes the provider refuse the whole job. These are the names at the levels whose form Lowtide
changes: request, generation config, content and part. `lowtide.shaping.checking` checks all levels.

Source: https://ai.google.dev/api/generate-content (GenerateContentRequest, GenerationConfig, Content, Part).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NEAR = 0.8
"""How alike two names must be for one to count as a misspelling of the other."""


def camel_case(name: str) -> str:
    """Returns a snake_case name in camelCase."""
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known field that a name is a misspelling of, in camelCase; None where none is near."""
    plain = {field.lower(): field for field in known if "_" not in field}
    found = difflib.get_close_matches(name.replace("_", "").replace("-", "").lower(), plain, n=1, cutoff=_NEAR)
    return plain[found[0]] if found else None


def _both_cases(*snake: str) -> dict[str, str]:
    """Maps each name in snake_case and in camelCase to its camelCase form."""
    return {spelling: camel_case(name) for name in snake for spelling in (name, camel_case(name))}


# Fields of the SDK's flat `config` that are beside `generationConfig` on the wire.
HOISTED = _both_cases(
    "safety_settings",
    "tools",
    "tool_config",
    "labels",
    "cached_content",
    "service_tier",
    "store",
    "continuation_token",
)
SYSTEM_INSTRUCTION = _both_cases("system_instruction")
REQUEST = {
    **_both_cases("contents", "generation_config", "model"),
    **SYSTEM_INSTRUCTION,
    **HOISTED,
}
GENERATION = _both_cases(
    "temperature",
    "top_p",
    "top_k",
    "candidate_count",
    "max_output_tokens",
    "stop_sequences",
    "response_logprobs",
    "logprobs",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "response_mime_type",
    "response_schema",
    "response_json_schema",
    "response_modalities",
    "media_resolution",
    "speech_config",
    "thinking_config",
    "image_config",
    "enable_enhanced_civic_answers",
    "audio_transcription_config",
    "response_format",
    "translation_config",
)
# The SDK uses these itself and does not send them.
DROPPED = _both_cases(
    "http_options", "automatic_function_calling", "automatic_continuation", "should_return_http_response"
)
VERTEX_ONLY = _both_cases(
    "routing_config",
    "model_selection_config",
    "audio_timestamp",
    "model_armor_config",
    "generation_output_config",
)
CONTENT = _both_cases("parts", "role")
PART = _both_cases(
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "thought",
    "thought_signature",
    "video_metadata",
    "part_metadata",
    "media_resolution",
    "media_processing",
    "audio_metadata",
    "audio_transcription",
    "document_metadata",
    "speech_metadata",
    "spreadsheet_metadata",
    "tool_call",
    "tool_response",
)
