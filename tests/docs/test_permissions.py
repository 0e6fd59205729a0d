"""The documented permissions of a user of Redis are those that the tests run with, and that doctor checks."""

from __future__ import annotations

from tests.docs.documents import ROOT

from lowtide.store.permissions import CHANNELS, COMMANDS, KEYS


def test_the_permissions_in_the_how_to_are_those_of_the_code() -> None:
    [block] = [text for text in (ROOT / "docs" / "how-to.md").read_text().split("```") if "ACL SETUSER lowtide" in text]
    _, _, words = block.partition("-@all")

    assert words.split() == [*KEYS, *CHANNELS, *(f"+{command}" for command in COMMANDS)]
