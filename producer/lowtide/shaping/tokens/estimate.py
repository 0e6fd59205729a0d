"""Estimates the input tokens of requests, in the provider's form.

Everything that the model reads counts: contents, system instruction, tools and response schema. A cached content is not
here, and does not count. The estimate need not be exact: a job that is refused although it fits the limit is
divided.

Source: https://ai.google.dev/gemini-api/docs/tokens
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from lowtide.shaping.tokens.encoded import Encoded
from lowtide.shaping.tokens.media import Clip, file_tokens
from lowtide.shaping.tokens.rates import rates_of
from lowtide.shaping.tokens.text import SHORT_BYTES, text_tokens

_NOTHING = msgspec.Raw()


class _Blob(msgspec.Struct, gc=False):
    """A file in a request: an `inlineData` or a `fileData`, in either letter case."""

    mime_type: str | None = None
    mime_type_: str | None = msgspec.field(default=None, name="mimeType")
    data: msgspec.Raw = _NOTHING


class _Part(msgspec.Struct, gc=False):
    """A part, in either letter case."""

    text: str | None = None
    inline_data: _Blob | None = None
    inline_data_: _Blob | None = msgspec.field(default=None, name="inlineData")
    file_data: _Blob | None = None
    file_data_: _Blob | None = msgspec.field(default=None, name="fileData")
    media_resolution: Any = None
    media_resolution_: Any = msgspec.field(default=None, name="mediaResolution")
    video_metadata: dict[str, Any] | None = None
    video_metadata_: dict[str, Any] | None = msgspec.field(default=None, name="videoMetadata")
    function_response: _Response | None = None
    function_response_: _Response | None = msgspec.field(default=None, name="functionResponse")
    function_call: msgspec.Raw = _NOTHING
    function_call_: msgspec.Raw = msgspec.field(default=_NOTHING, name="functionCall")
    executable_code: msgspec.Raw = _NOTHING
    executable_code_: msgspec.Raw = msgspec.field(default=_NOTHING, name="executableCode")
    result: msgspec.Raw = msgspec.field(default=_NOTHING, name="codeExecutionResult")


class _Response(msgspec.Struct, gc=False):
    """A `functionResponse`, which may have files of its own."""

    name: str | None = None
    response: msgspec.Raw = _NOTHING
    parts: list[_Part] | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | _Part | None = None


class _Config(msgspec.Struct, gc=False):
    media_resolution: Any = None
    media_resolution_: Any = msgspec.field(default=None, name="mediaResolution")
    response_schema: msgspec.Raw = _NOTHING
    response_schema_: msgspec.Raw = msgspec.field(default=_NOTHING, name="responseSchema")
    response_json_schema: msgspec.Raw = _NOTHING
    response_json_schema_: msgspec.Raw = msgspec.field(default=_NOTHING, name="responseJsonSchema")


class _Request(msgspec.Struct, gc=False):
    """A GenerateContentRequest or an EmbedContentRequest. Its own names have the shaper's letter case."""

    contents: list[_Content] = []
    content: _Content | None = None
    system_instruction: _Content | str | None = msgspec.field(default=None, name="systemInstruction")
    tools: msgspec.Raw = _NOTHING
    config: _Config | None = msgspec.field(default=None, name="generationConfig")


_decode = msgspec.json.Decoder(_Request).decode
_FIRST_TEXT = re.compile(rb'\{"content(?:s":\[\{|":\{)[^\\]{0,200}?"text":"')
"""The beginning of a request up to its first text, where that comes soon."""
_LONGEST_TAIL = 1 << 20
"""Bytes of the end of a request that are remembered."""


class TokenEstimate:
    """Estimates the input tokens of the requests of one batch.

    `model` is their model, whose generation decides the rates of media.
    """

    def __init__(self, model: str) -> None:
        self._rates = rates_of(model)
        # The last request's bytes around its first text, and their tokens: most requests of a batch differ in one text.
        self._head = self._tail = b"\0"
        self._start, self._short_end = 1, 0
        self._tokens = 0

    def of(self, body: bytes) -> int:
        """Returns the estimated input tokens of a GenerateContentRequest or an EmbedContentRequest, given as JSON."""
        start = self._start
        end = body.find(b'"', start)
        if body[end:] == self._tail and body[:start] == self._head:
            if end <= self._short_end and body.isascii():
                return self._tokens + (end - start + 3 >> 2)  # as `text_tokens`, whose call takes longer than this
            return self._tokens + text_tokens(body[start:end])
        try:
            tokens = self._of_request(_decode(body))
        except (msgspec.MsgspecError, RecursionError):
            # The check of types sends some requests in spite of a field of another type.
            return text_tokens(body)
        self._remember(body, tokens)
        return tokens

    def _remember(self, body: bytes, tokens: int) -> None:
        found = _FIRST_TEXT.match(body)
        if found is None:
            return
        start = found.end()
        end = body.find(b'"', start)
        others = tokens - text_tokens(body[start:end])
        # A quote behind a backslash belongs to the text.
        if body[end - 1 : end] == b"\\" or len(body) - end > _LONGEST_TAIL or others < 0:
            return
        self._head, self._tail, self._tokens = body[:start], body[end:], others
        self._start, self._short_end = start, start + SHORT_BYTES

    def _of_request(self, request: _Request) -> int:
        config = request.config or _Config()
        resolution = _level(config.media_resolution_ or config.media_resolution)
        schemas = (
            config.response_schema,
            config.response_schema_,
            config.response_json_schema,
            config.response_json_schema_,
        )
        tokens = sum(map(_of_json, (request.tools, *schemas)))
        for content in (*request.contents, request.content, request.system_instruction):
            if isinstance(content, str):
                tokens += text_tokens(content.encode())
            elif content is not None:
                parts = content.parts
                tokens += self._of_parts([parts] if isinstance(parts, _Part) else parts or (), resolution)
        return tokens

    def _of_parts(self, parts: Iterable[_Part], resolution: str) -> int:
        return sum(self._of_part(part, resolution) for part in parts)

    def _of_part(self, part: _Part, resolution: str) -> int:
        tokens = text_tokens(part.text.encode()) if part.text else 0
        for value in (
            part.function_call,
            part.function_call_,
            part.executable_code,
            part.executable_code_,
            part.result,
        ):
            tokens += _of_json(value)
        for response in (part.function_response, part.function_response_):
            if response is not None:
                tokens += text_tokens((response.name or "").encode()) + _of_json(response.response)
                tokens += self._of_parts(response.parts or (), resolution)
        for blob in (part.inline_data, part.inline_data_, part.file_data, part.file_data_):
            if blob is not None:
                tokens += self._of_blob(part, blob, resolution)
        return tokens

    def _of_blob(self, part: _Part, blob: _Blob, resolution: str) -> int:
        own = _level(part.media_resolution_ or part.media_resolution)
        seen = part.video_metadata_ or part.video_metadata or {}
        clip = Clip(
            seen.get("startOffset", seen.get("start_offset")),
            seen.get("endOffset", seen.get("end_offset")),
            seen.get("fps"),
        )
        text = memoryview(blob.data)[1:-1]
        file = Encoded(text) if len(text) else None
        return file_tokens(file, blob.mime_type_ or blob.mime_type or "", self._rates, own or resolution, clip)


def _of_json(value: msgspec.Raw) -> int:
    return text_tokens(bytes(value))


def _level(resolution: Any) -> str:
    """The name of a MediaResolution, which a part has in an object."""
    if isinstance(resolution, dict):
        resolution = resolution.get("level")
    return resolution.upper() if isinstance(resolution, str) else ""
