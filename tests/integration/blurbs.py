"""Requests for a shop's catalogue, and the mark of modules whose tests hold on both providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lowtide import ProviderName, Request

MODEL = "gemini-3.5-flash"
ON_BOTH = pytest.mark.parametrize("provider", list(ProviderName), scope="module")


def blurbs(count: int) -> Iterator[Request]:
    for number in range(count):
        yield Request(
            key=f"sku-{number}",
            contents=f"Write a blurb for article {number}.",
            config={"temperature": 0.2},
            metadata={"row": str(number)},
        )
