"""Counts the pages of a PDF."""

from __future__ import annotations

import re

from lowtide.shaping.tokens.encoded import Encoded

MOST_PAGES = 1000
"""Most pages of a document. Source: https://ai.google.dev/gemini-api/docs/document-processing"""
_MOST_BYTES = 64 << 20
"""Bytes of a document that are searched for pages."""
_BLOCK_BYTES = 3 << 20
_OVERLAP = 64
"""A page's mark is shorter."""
_PAGE = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s{1,8}(\d{1,6})")
_LINEARIZED = re.compile(rb"/Linearized\s.{0,200}?/N\s{1,8}(\d{1,6})", re.DOTALL)
_BYTES_A_PAGE = 50_000
"""Of a document whose pages are compressed, and do not show."""


def pages(file: Encoded) -> int:
    """Returns the number of pages of a PDF, from 1 to 1,000; by its length where it does not show."""
    first = file.read(0, 1024)
    if found := _LINEARIZED.search(first):
        return _bounded(int(found[1]))
    marks = most = 0
    for at in range(0, min(file.size, _MOST_BYTES), _BLOCK_BYTES):
        block = file.read(at, _BLOCK_BYTES + _OVERLAP)
        marks += sum(found.start() < _BLOCK_BYTES for found in _PAGE.finditer(block))
        most = max([most, *(int(found[1]) for found in _COUNT.finditer(block))])
    return _bounded(marks or most or file.size // _BYTES_A_PAGE)


def _bounded(count: int) -> int:
    return min(max(count, 1), MOST_PAGES)
