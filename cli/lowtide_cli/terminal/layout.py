"""Layouts that fit the terminal and never divide a word: tables, records below each other, and names with values.

A divided id, name or URL cannot be copied, so a table that is too wide is not squeezed: its rows become records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lowtide.text import on_one_line

_GAP = 2
_INDENT = Text(" " * _GAP)
_MARK = Style(color="yellow")
_DIM = Style(dim=True)


@dataclass(frozen=True)
class Column:
    """A column of rows.

    - `name`: its heading.
    - `right`: align it to the right.
    - `optional`: leave it out of a table that is too wide.
    """

    name: str
    right: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Row:
    """A row of cells, one for each column.

    - `note`: shown with the row; "" for none.
    - `subject`: the name of the row where its note is below a table. "": the name and the cell of the first column.
    """

    cells: Sequence[str | Text]
    note: str = ""
    subject: str = ""


def print_rows(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Prints rows as a table, if it fits; else each as a record, with the value of the first column on its first line.

    The value of the first column identifies a row.
    """
    cells = [[_text(cell) for cell in row.cells] for row in rows]
    every = range(len(columns))
    needed = [at for at in every if not columns[at].optional]
    for chosen in (every, needed):
        if _width(columns, cells, chosen) <= console.width:
            console.print(_table(columns, cells, chosen))
            for row, found in zip(rows, cells, strict=True):
                if row.note:
                    subject = row.subject or f"{columns[0].name} {found[0].plain}"
                    _print_note(console, f"{subject}: {row.note}", Text("! ", style=_MARK))
            return
    for row, found in zip(rows, cells, strict=True):
        _print_record(console, columns, found)
        if row.note:
            _print_note(console, row.note, Text("  ! ", style=_MARK))


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Prints names with values, one below the other. Facts without a value are left out."""
    known = {name: value for name, value in facts.items() if value}
    indent = max(map(len, known), default=0) + _GAP
    for name, value in known.items():
        start = Text(name.ljust(indent), style=_DIM)
        if _longest_word(value) > console.width - indent:
            console.print(Text(name, style=_DIM))
            start = Text(" " * _GAP)
        for line in value.split("\n"):
            print_words(console, Text(line), start=start)
            start = Text(" " * start.cell_len)


def print_words(console: Console, text: Text, *, start: Text) -> None:
    """Prints a paragraph behind `start`, wrapped between words. A word that is too long is left to the terminal."""
    width = console.width - start.cell_len
    lines = text.wrap(console, width) if _longest_word(text.plain) <= width else [text]
    for line in lines:
        line.rstrip()
        console.print(Text.assemble(start, line), soft_wrap=True)
        start = Text(" " * start.cell_len)


def _print_record(console: Console, columns: Sequence[Column], cells: Sequence[Text]) -> None:
    console.print(Text.assemble((f"{columns[0].name} ", _DIM), cells[0]), soft_wrap=True)
    line = Text()
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        if not cell:
            continue
        pair = Text.assemble((f"{column.name} ", _DIM), cell)
        if line and _GAP + line.cell_len + 2 + pair.cell_len > console.width:
            print_words(console, line, start=_INDENT)
            line = Text()
        line = Text.assemble(line, ", ", pair) if line else pair
    print_words(console, line, start=_INDENT)


def _print_note(console: Console, note: str, start: Text) -> None:
    print_words(console, Text(on_one_line(note), style=_MARK), start=start)


def _table(columns: Sequence[Column], cells: Sequence[Sequence[Text]], chosen: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style=_DIM, padding=(0, _GAP, 0, 0))
    for at in chosen:
        table.add_column(columns[at].name, justify="right" if columns[at].right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(row[at] for at in chosen))
    return table


def _width(columns: Sequence[Column], cells: Sequence[Sequence[Text]], chosen: Sequence[int]) -> int:
    widest = (max(len(columns[at].name), *(row[at].cell_len for row in cells)) for at in chosen)
    return sum(widest) + _GAP * (len(chosen) - 1)


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(on_one_line(cell))


def _longest_word(text: str) -> int:
    return max((Text(word).cell_len for word in text.split()), default=0)
