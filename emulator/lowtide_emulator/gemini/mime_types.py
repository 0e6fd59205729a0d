"""The MIME types that the Files API takes.

Source: https://ai.google.dev/gemini-api/docs/files and https://ai.google.dev/gemini-api/docs/document-processing
"""

from __future__ import annotations

import mimetypes

from lowtide_emulator.calls import RefusalError

KINDS = ("text/", "image/", "audio/", "video/", "application/vnd.")
"""The starts of types, all of whose rest is taken."""
TYPES = frozenset(
    {
        "jsonl",
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/msword",
        "application/pdf",
        "application/rtf",
        "application/x-javascript",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/x-python",
        "application/x-python-code",
        "application/x-typescript",
        "application/xml",
    }
)
UNKNOWN = "application/octet-stream"
"""The type of a file whose name does not show its type."""


def check_mime_type(mime_type: str) -> None:
    """Refuses a file of a type that the service does not take."""
    plain = mime_type.partition(";")[0].strip().lower()
    if plain not in TYPES and not plain.startswith(KINDS):
        raise RefusalError(400, f"Unsupported MIME type: {mime_type}")


def guessed_mime_type(name: str) -> str:
    """Returns the type that the end of a name shows."""
    if name.endswith(".jsonl"):
        return "application/jsonl"
    return mimetypes.guess_type(name)[0] or UNKNOWN
