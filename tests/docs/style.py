"""Finds breaches of the style rules that can be tested: see "Plain English" in CONTRIBUTING.md.

`python -m tests.docs.style` lists every breach; with `--write` it also writes the exceptions anew.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.documents import DOCUMENTS, ROOT

PACKAGES = ("producer", "worker", "emulator", "cli")
EXCEPTIONS = Path(__file__).with_name("style_exceptions.json")
"""For each file, the most breaches it may still have. The numbers may only fall."""

_QUESTION = re.compile(r"(?:What|Where|Whose|Which|Who|Whoever)\b")
_PLAIN = {
    # The words to avoid, with better ones. Each is a pattern, as ordinary uses of the same letters are left alone.
    r"mend(?:s|ed|ing)?": "fix, repair, correct",
    r"whoever": "a process, a client, a caller that",
    r"nobody|somebody|anybody": "no process, no worker, another process",
    r"(?:come|comes|came|coming) (?:to|of)": "end as, result in, reach",
    r"(?:lie|lies|lay)": "is, is stored, is in",
    r"believ(?:e|es|ed|ing)": "trust, assume",
    r"look(?:s|ed|ing)? at": "check, poll, read",
    r"(?:take|takes|took|taken) in(?! place)": "accept, import",
    r"tell(?:s|ing)?|told": "report, show, notify",
    r"(?:stand|stands|stood) (?:in(?! for)|on|at|by|still|there|under|above|beside)": "is in, is written in, wait",
    r"(?:see|sees|saw) to": "ensure, do",
    r"heed(?:s|ed)?|whence|thence|lest|thereof|therein|hither|thither": "a word of today",
    r"what becomes of|what became of": "the outcome of",
}
_HOUSEHOLD = {
    re.compile(rf"\b(?:{words})\b".replace(" ", r"\s+"), re.IGNORECASE): better for words, better in _PLAIN.items()
}
_SKIP = re.compile(r"#\s*fmt:\s*skip\s*$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`|\]\([^)]*\)")
_FIGURES = re.compile(r"<!-- figures: begin.*?figures: end -->", re.DOTALL)


class Breach(NamedTuple):
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def breaches() -> list[Breach]:
    """Returns every breach in the packages, the tests and the documentation."""
    found: list[Breach] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found += in_python(path)
        for path in sorted((ROOT / package).rglob("*.lua")):
            found += _household(path, _lua_comments(path))
    for path in sorted(p for folder in ("tests", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")):
        found += [*_bare_skips(path), *_questions(path)]
    for path in DOCUMENTS:
        if path.name != "CHANGELOG.md":
            found += _household(path, [(1, _prose(path.read_text()))])
    return found


def in_python(path: Path) -> Iterator[Breach]:
    """Yields the breaches of a module of the packages."""
    source = path.read_text()
    yield from _bare_skips(path)
    yield from _questions(path)
    yield from _household(path, [*_texts(source), *_comments(source)])


def _questions(path: Path) -> Iterator[Breach]:
    for line, text in _docstrings(path.read_text()):
        if _QUESTION.match(text):
            yield Breach(_name(path), line, "begins with a question word", text.splitlines()[0])


def _bare_skips(path: Path) -> Iterator[Breach]:
    source = path.read_text()
    for found in _SKIP.finditer(source):
        line = source.count("\n", 0, found.start()) + 1
        yield Breach(_name(path), line, "`fmt: skip` without a reason", source.splitlines()[line - 1].strip())


def _household(path: Path, texts: list[tuple[int, str]]) -> Iterator[Breach]:
    for first, text in texts:
        for words, better in _HOUSEHOLD.items():
            for found in words.finditer(text):
                line = first + text.count("\n", 0, found.start())
                around = " ".join(text[max(0, found.start() - 40) : found.end() + 40].split())
                yield Breach(_name(path), line, f"{' '.join(found[0].split())!r} (better: {better})", around)


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the docstrings, those of attributes too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Yields every string of more than one word: docstrings, help, descriptions, errors, log lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, re.sub(r"`[^`\n]*`", "", node.value)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields the blocks of comments, so that an expression is found across a line's end."""
    block, last = [""], -1
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield first, "\n".join(block)
                block, first = [], token.start[0]
            block.append(token.string.lstrip("# "))
            last = token.start[0]
    yield first, "\n".join(block)


def _lua_comments(path: Path) -> list[tuple[int, str]]:
    lines = path.read_text().splitlines()
    return [(n, line.partition("--")[2]) for n, line in enumerate(lines, 1) if "--" in line]


def _prose(text: str) -> str:
    """The text without code, measured figures and targets of links; the lines keep their numbers."""
    for pattern in (_FIGURES, _FENCE, _CODE):
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    return text


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def counts(found: list[Breach]) -> dict[str, int]:
    """Returns how many breaches each file has."""
    return dict(sorted(Counter(breach.path for breach in found).items()))


def main() -> None:
    """Lists the breaches."""
    found = breaches()
    print(*found, sep="\n")
    print(len(found), "breaches in", len(counts(found)), "files")
    if "--write" in sys.argv:
        EXCEPTIONS.write_text(json.dumps(counts(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
