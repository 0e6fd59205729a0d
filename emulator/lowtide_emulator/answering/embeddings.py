"""The built-in embedding model: its vectors depend only on the text.

Of the marks of `text_model` it supports `[[error:8]]`, without a count.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Raw

from lowtide_emulator.answering.answers import Reply, RowError
from lowtide_emulator.answering.text_model import MARK, Content, row_error
from lowtide_emulator.wire import either, integer

_COMPONENT = [f"{(byte - 127.5) / 2048:.6f}".encode() for byte in range(256)]


class EmbedConfig(msgspec.Struct, gc=False):
    """The nested form of the parameters."""

    dimensions: int | str | None = msgspec.field(default=None, name="outputDimensionality")
    dimensions_snake: int | str | None = msgspec.field(default=None, name="output_dimensionality")


class EmbedPrompt(msgspec.Struct, gc=False):
    """An EmbedContentRequest."""

    content: Content | None = None
    dimensions: int | str | None = msgspec.field(default=None, name="outputDimensionality")
    dimensions_snake: int | str | None = msgspec.field(default=None, name="output_dimensionality")
    config: EmbedConfig | None = msgspec.field(default=None, name="embedContentConfig")
    config_snake: EmbedConfig | None = msgspec.field(default=None, name="embed_content_config")


_decode = msgspec.json.Decoder(EmbedPrompt).decode


class Vector(msgspec.Struct, gc=False):
    """The values, encoded as JSON."""

    values: Raw


class Embedded(msgspec.Struct, rename="camel", gc=False):
    """An embedding and its token count, which is an int64 and therefore a string."""

    token_count: str
    embedding: Vector


class VectorModel:
    """A model that answers embedContent rows.

    dimensions: the length of a vector if the request does not give one.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the embedding of a request's content, or an error."""
        del key
        prompt = _decode(request)
        if prompt.content is None or not prompt.content.all_parts:
            return RowError(3, "* EmbedContentRequest.content: content is empty\n")
        text = " ".join(part.text or "" for part in prompt.content.all_parts)
        mark = MARK.search(text) if "[[" in text else None
        if mark is not None and mark[1] == "error":
            return row_error(int(mark[2] or 13))
        config = either(prompt.config, prompt.config_snake) or EmbedConfig()
        asked = integer(prompt.dimensions, prompt.dimensions_snake)
        if asked is None:
            asked = integer(config.dimensions, config.dimensions_snake)
        size = self._dimensions if asked is None else asked
        if size < 1:
            return RowError(3, "output_dimensionality must be positive")
        digest = hashlib.shake_128(text.encode(errors="replace")).digest(size)
        values = b",".join(map(_COMPONENT.__getitem__, digest))
        return Embedded(str((len(text) + 3) // 4), Vector(Raw(b"[" + values + b"]")))
