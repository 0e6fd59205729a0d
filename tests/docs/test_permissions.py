"""The documented permissions of a user of Redis are those that the tests run with, and that doctor checks."""

from __future__ import annotations

import re

from tests.docs.documents import ROOT

from lowtide.store.permissions import CHANNELS, COMMANDS, KEYS


def test_the_permissions_in_the_how_to_are_those_of_the_code() -> None:
    [block] = [text for text in (ROOT / "docs" / "how-to.md").read_text().split("```") if "ACL SETUSER lowtide" in text]
    _, _, words = block.partition("-@all")

    assert words.split() == [*KEYS, *CHANNELS, *(f"+{command}" for command in COMMANDS)]


def test_scripts_run_no_command_that_needs_another_permission() -> None:
    scripts = [path for package in ("producer", "worker") for path in (ROOT / package).rglob("*.lua")]
    commands = {name for path in scripts for name in re.findall(r"redis\.p?call\('(\w+)'", path.read_text())}

    assert len(commands) > 20
    assert {name.lower() for name in commands} - set(COMMANDS) == set()
