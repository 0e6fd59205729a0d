"""The parts of an answer: text, calls of declared functions, and images."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from typing import Any

import msgspec

from lowtide_emulator.answering.rules import functions, get, items
from lowtide_emulator.answering.schema_sample import sample

IMAGE_TOKENS = 1290
"""The tokens that an image of the service costs."""

Json = dict[str, Any]


class TextPart(msgspec.Struct, gc=False):
    """A text."""

    text: str


class Call(msgspec.Struct, gc=False):
    """A function's name and its arguments."""

    name: str
    args: Json


class CallPart(msgspec.Struct, rename="camel", gc=False):
    """A call of a function."""

    function_call: Call


class Blob(msgspec.Struct, rename="camel", gc=False):
    """Bytes in base64, with their MIME type."""

    mime_type: str
    data: str


class ImagePart(msgspec.Struct, rename="camel", gc=False):
    """An image."""

    inline_data: Blob


Part = TextPart | CallPart | ImagePart


def wanted_call(tools: list[Json] | Json | None, tool_config: Json | None, text: str, *, answered: bool) -> Part | None:
    """Returns the call that a request wants from the model; None if it wants another answer.

    In mode ANY the model must call a function. In the other modes it calls one that the text names.

    answered: whether the last turn is the response of a function, so that there is nothing left to call.
    """
    calling = get(tool_config or {}, "functionCallingConfig") or {}
    mode = str(calling.get("mode") or "AUTO").upper()
    allowed = items(get(calling, "allowedFunctionNames"))
    known = [function for tool in items(tools) for function in functions(tool)]
    known = [function for function in known if not allowed or function.get("name") in allowed]
    if not known or mode == "NONE":
        return None
    named = [one for one in known if re.search(rf"(?<!\w){re.escape(str(one.get('name')))}(?!\w)", text)]
    if mode != "ANY" and (answered or not named):
        return None
    chosen = named[0] if named else known[0]
    schema = chosen.get("parameters")
    schema = get(chosen, "parametersJsonSchema") if schema is None else schema
    args = sample(schema, " ".join(text.split()[:4])) if schema else {}
    return CallPart(Call(str(chosen.get("name")), args if isinstance(args, dict) else {}))


def image(text: str) -> ImagePart:
    """Returns a PNG of one pixel, whose colour depends on the text."""
    colour = hashlib.blake2b(text.encode(errors="replace"), digest_size=3).digest()
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + colour)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return ImagePart(Blob("image/png", base64.b64encode(png).decode()))
