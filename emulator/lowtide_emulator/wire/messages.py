"""Messages that a row can contain, and the check that they have only known fields.

The service refuses a whole batch for one unknown field; that is how the SDK's own flat `config` fails in a file.
msgspec checks messages with generated structs, which have each field in both spellings. It does not parse values that
do not matter.

Source: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from lowtide_emulator.wire.proto_json import snake

_UNKNOWN = re.compile(r"^Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?$")


def message(name: str, fields: dict[str, type | object]) -> type[msgspec.Struct]:
    """Returns a struct with exactly these fields, also in snake_case, all optional."""
    spelled: dict[str, object] = {}
    for camel, kind in fields.items():
        spelled[camel] = kind
        spelled[snake(camel)] = kind
    return msgspec.defstruct(
        name,
        [(field, kind, None) for field, kind in spelled.items()],
        forbid_unknown_fields=True,
        gc=False,
    )


def _unread(*names: str) -> dict[str, type | object]:
    return dict.fromkeys(names, Raw)


Part = message(
    "Part",
    {
        "text": str | None,
        **_unread(
            "audioTranscription",
            "codeExecutionResult",
            "executableCode",
            "fileData",
            "functionCall",
            "functionResponse",
            "inlineData",
            "mediaResolution",
            "partMetadata",
            "thought",
            "thoughtSignature",
            "toolCall",
            "toolResponse",
            "videoMetadata",
        ),
    },
)
Content = message("Content", {"role": str | None, "parts": list[Part] | None})  # type: ignore[valid-type]
_GENERATION_FIELDS: dict[str, type | object] = {
    "maxOutputTokens": int | str | None,
    "responseMimeType": str | None,
    **_unread(
        "audioTranscriptionConfig",
        "candidateCount",
        "enableAffectiveDialog",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "imageConfig",
        "logprobs",
        "mediaResolution",
        "presencePenalty",
        "responseFormat",
        "responseJsonSchema",
        "responseLogprobs",
        "responseModalities",
        "responseSchema",
        "seed",
        "speechConfig",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
        "translationConfig",
    ),
}
GenerationConfig = message("GenerationConfig", _GENERATION_FIELDS)
_REQUEST_FIELDS: dict[str, type | object] = {
    "model": str | None,
    "contents": list[Content] | None,  # type: ignore[valid-type]
    "systemInstruction": Content | None,
    "generationConfig": GenerationConfig | None,
    **_unread(
        "cachedContent",
        "continuationToken",
        "labels",
        "safetySettings",
        "serviceTier",
        "store",
        "toolConfig",
        "tools",
    ),
}
GenerateContentRequest = message("GenerateContentRequest", _REQUEST_FIELDS)
VertexGenerateContentRequest = message(
    "VertexGenerateContentRequest",
    {
        **_REQUEST_FIELDS,
        **_unread("modelArmorConfig"),
        "generationConfig": message(
            "VertexGenerationConfig",
            {**_GENERATION_FIELDS, **_unread("audioTimestamp", "modelSelectionConfig", "routingConfig")},
        )
        | None,
    },
)
"""The same with the fields that only Vertex AI has."""
EmbedContentRequest = message(
    "EmbedContentRequest",
    {
        "model": str | None,
        "content": Content | None,
        "taskType": str | None,
        "title": str | None,
        "outputDimensionality": int | str | None,
        "embedContentConfig": message(
            "EmbedContentConfig",
            {
                "outputDimensionality": int | str | None,
                **_unread(
                    "taskType",
                    "title",
                    "autoTruncate",
                    "documentOcr",
                    "audioTrackExtraction",
                ),
            },
        )
        | None,
    },
)


class RequestChecker:
    """A check for messages of one kind."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def problem(self, line: bytes | Raw) -> str | None:
        """Returns the problem of a message; None if it is valid."""
        try:
            self._decode(line)
        except msgspec.ValidationError as error:
            return explain(error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"not valid JSON: {error}"
        return None


def explain(error: msgspec.ValidationError) -> str:
    """Returns an error of msgspec in the words of the service."""
    unknown = _UNKNOWN.match(str(error))
    if unknown is None:
        return str(error)
    place = f" at '{unknown[2]}'" if unknown[2] else ""
    return f"no such field: '{unknown[1]}'{place}"
