"""Whether two names of models mean the same model.

The provider names the model that answered (`modelVersion`) with more or fewer details than a user asks for. Two names
mean the same model where they agree after these parts are removed: `models/` and `publishers/google/models/` before
the name; behind it `@<version>`, a number of three digits (`-002`), `-latest`, `-preview` and `-exp`, the last two also
with a date (`-preview-05-06`).

A name that ends in `-latest` is an alias that may point to any model, and a tuned model or an endpoint
(`tunedModels/...`, `projects/...`) is answered under the name of its base: whatever answers is what was asked for.

Source: https://ai.google.dev/gemini-api/docs/models (model version name patterns).
"""

from __future__ import annotations

import re

_FOLDER = re.compile(r"(?:.*/)?publishers/google/models/|models/")
_VERSION = re.compile(r"@.*$|-\d{3}$|-latest$|-(?:preview|exp)(?:-\d{2}-(?:\d{2}|\d{4}))?$|-(?:preview|exp)-\d{4}$")


def is_same_model(asked: str, answered: str) -> bool:
    """Returns whether the model that answered is the one that was asked for, in any version."""
    name = _bare(asked)
    if "/" in name or name.endswith("-latest"):
        return True
    return without_version(name) == without_version(answered)


def without_version(name: str) -> str:
    """Returns the name that all versions of a model share, in lower case."""
    plain = _bare(name)
    while (shorter := _VERSION.sub("", plain)) != plain:
        plain = shorter
    return plain


def _bare(name: str) -> str:
    lowered = name.strip().lower()
    folder = _FOLDER.match(lowered)
    return lowered[folder.end() :] if folder else lowered
