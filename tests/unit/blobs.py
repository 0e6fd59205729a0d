"""Helpers for the tests of the spool: one writes a blob, one lists the files."""

from __future__ import annotations

from pathlib import Path

from lowtide.spool import Spool


def put(spool: Spool, name: str, content: bytes) -> None:
    with spool.write(name) as file:
        file.write(content)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
