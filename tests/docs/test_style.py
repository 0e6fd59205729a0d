"""The style rules of CONTRIBUTING.md, as far as a program can check them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.docs.documents import ROOT, text_of
from tests.docs.style import EXCEPTIONS, breaches, counts, in_python

CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_no_file_breaks_the_style_rules_more_often_than_its_exception_allows() -> None:
    allowed: dict[str, int] = json.loads(EXCEPTIONS.read_text())
    found = breaches()
    worse = {path for path, count in counts(found).items() if count > allowed.get(path, 0)}

    assert not worse, "\n".join(str(breach) for breach in found if breach.path in worse)


def test_every_exception_is_still_needed() -> None:
    missing = [path for path in json.loads(EXCEPTIONS.read_text()) if not (ROOT / path).exists()]

    assert not missing, f"gone; write the exceptions anew: python -m tests.docs.style --write: {missing}"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", text_of(CONTRIBUTING)))))
def test_every_file_that_contributors_are_sent_to_exists(name: str) -> None:
    assert (ROOT / name).exists()


def test_a_newcomers_questions_are_answered_with_files() -> None:
    section = text_of(CONTRIBUTING).partition("## Where is …")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| .*\? \| (.*) \|$", section, re.MULTILINE)

    assert len(answers) >= 12
    assert all(re.fullmatch(r"`[\w./]+`(?:, `[\w./]+`)*", answer) for answer in answers)


def test_the_rules_of_plain_english_are_eight() -> None:
    section = text_of(CONTRIBUTING).partition("## Plain English")[2].partition("\n## ")[0]

    assert re.findall(r"^(\d)\. \*\*", section, re.MULTILINE) == list("12345678")


@pytest.mark.parametrize(
    "source",
    [
        '"""Which rows come back."""',
        'WORD = 1\n"""Whose word a part is."""',
        'raise ValueError("the file lies elsewhere")',
        "# Whoever reads\n# this",
        "# What rows come\n# to in the end",
        'def f():\n    """Takes in\n    a batch."""',
        "x = (1,\n     2)  # fmt: " + "skip",
    ],
)
def test_a_breach_is_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(source)

    assert len(list(in_python(path))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Whether the rows are complete."""',
        'raise ValueError("the emulator stands in for Google")',
        "# taken in place of the other",
        "# earlier, relied, outlier",
        'names = ["nobody"]',
        "x = (1,\n     2)  # fmt: " + "skip  # a table",
    ],
)
def test_an_ordinary_use_is_left_alone(source: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(source)

    assert list(in_python(path)) == []
