"""The provider's field names, so that a misspelt one fails at `submit` and not hours later.

One malformed line makes the provider refuse the whole job, so names are checked at the levels where
people write them by hand: request, generation config, content and part. Deeper objects pass as given.

Source: https://ai.google.dev/api/generate-content (GenerateContentRequest, GenerationConfig, Content, Part).
"""

from __future__ import annotations


def _both_cases(*snake: str) -> dict[str, str]:
    """Maps each name in snake_case and in camelCase to its camelCase form."""
    names: dict[str, str] = {}
    for name in snake:
        head, *tail = name.split("_")
        camel = head + "".join(word.capitalize() for word in tail)
        names[name] = names[camel] = camel
    return names


# Fields of the SDK's flat `config` that live beside `generationConfig` on the wire.
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
# The SDK acts on these itself and sends nothing.
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
