"""Lines of CSV, in which no cell is run as a formula by a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORMULA = re.compile("'*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
"""The beginnings that OWASP's page "CSV Injection" lists. Apostrophes before them are counted in, so that one that is
added can be removed again without knowing the cell from before."""
_QUOTED = re.compile('[",;\t\r\n]')
"""In many countries a spreadsheet divides lines at semicolons. The standard library knows one separator, so a formula
could begin behind the other."""
_NUMBER = re.compile(r"[+-]\d+(\.\d+)?", re.ASCII)


def csv_line(cells: Iterable[str]) -> str:
    """Returns cells as a line of CSV by RFC 4180, with its end.

    A cell that a spreadsheet would run as a formula gets an apostrophe before it, so that it is text. Numbers stay as
    they are.
    """
    return ",".join(_quoted(_as_text(cell)) for cell in cells) + "\r\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell


def _as_text(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
