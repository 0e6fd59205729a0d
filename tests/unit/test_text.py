"""Text for people."""

from __future__ import annotations

import pytest

from lowtide.text import counted


@pytest.mark.parametrize(
    ("count", "many", "text"),
    [(0, "", "0 requests"), (1, "", "1 request"), (2, "", "2 requests"), (1_000, "queries", "1,000 queries")],
)
def test_a_count_has_the_noun_that_fits(count: int, many: str, text: str) -> None:
    assert counted(count, "request", many) == text
