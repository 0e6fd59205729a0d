"""Tables of the documentation are whole: a line without a bar ends a table, and what follows it is plain text."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from tests.docs.documents import _BLOCK, DOCUMENTS, text_of

_RULE = re.compile(r"\|( ?:?-+:? ?\|)+")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_table_begins_with_its_heading(document: Path) -> None:
    lines = ["", *_BLOCK.sub("", text_of(document)).splitlines(), ""]
    inside = [line.startswith("|") for line in lines]
    begins = [at for at, (before, now) in enumerate(pairwise(inside)) if now and not before]

    assert [lines[at + 1] for at in begins if not _RULE.fullmatch(lines[at + 2])] == []
