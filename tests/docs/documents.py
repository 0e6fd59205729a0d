"""Reads the documentation: its code blocks, its links, the names it uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>run|run: vertex|file: [\w.]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SETTING = re.compile(r"\b(?:LOWTIDE|GEMINI|GOOGLE)_[A-Z0-9_]*[A-Z0-9]\b")


class Block(NamedTuple):
    """A fenced block; `mark` is the HTML comment on the line before it, or nothing.

    It is `run`, `run: vertex` (the same where Vertex AI is) or `file: <name>`.
    """

    document: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.document.name}:{self.line}"


@cache
def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path) -> Iterator[Block]:
    text = text_of(document)
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(document, line, found["language"], found["mark"] or "", found["text"])


def links(document: Path) -> Iterator[str]:
    """Links to other places of the project: all but those with a scheme."""
    for target in _LINK.findall(_BLOCK.sub("", text_of(document))):
        if "://" not in target:
            yield target


def anchors(document: Path) -> set[str]:
    """Returns the names that a link may have after the `#`, as GitHub derives them from headings."""
    headings = _HEADING.findall(_BLOCK.sub("", text_of(document)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def setting_names(text: str) -> set[str]:
    """All names of environment variables of ours and of the provider."""
    return set(_SETTING.findall(text))
