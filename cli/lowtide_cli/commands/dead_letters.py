"""`lowtide dead-letters`: segments that no handler accepted, and messages that no worker could process."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from lowtide import DeadLetter, DeadLetters
from lowtide.models import to_builtins
from lowtide_cli.terminal.output import ago, local_time, print_json, stdout


def list_letters(*, limit: int, as_json: bool) -> None:
    """Prints the newest dead letters."""
    letters = DeadLetters().list(limit=limit)
    if as_json:
        print_json({"dead_letters": [to_builtins(letter) for letter in letters]})
        return
    console = stdout()
    if not letters:
        console.print("no dead letters")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    # An incomplete id is useless.
    table.add_column("id", no_wrap=True, min_width=max(len(letter.id) for letter in letters))
    for name in ("kind", "age"):
        table.add_column(name, no_wrap=True)
    table.add_column("reason", overflow="ellipsis", no_wrap=True)
    for letter in letters:
        table.add_row(letter.id, letter.kind, ago(letter.time), escape(letter.reason))
    console.print(table)


def show_letter(letter_id: str, *, as_json: bool) -> None:
    """Prints all details of one dead letter."""
    letter = DeadLetters().get(letter_id)
    if as_json:
        print_json(to_builtins(letter))
        return
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(letter):
        facts.add_row(name, escape(value))
    stdout().print(facts)


def _facts(letter: DeadLetter) -> list[tuple[str, str]]:
    facts = [("id", letter.id), ("kind", letter.kind), ("since", local_time(letter.time)), ("reason", letter.reason)]
    if letter.batch_id:
        facts.append(("batch", letter.batch_id))
    return facts + [(name, str(value)) for name, value in letter.detail.items() if value is not None]


def redeliver(letter_ids: list[str], *, every: bool) -> None:
    """Delivers parked segments to their handlers again, all of them if `every` is true."""
    letters = DeadLetters()
    for letter_id in _parked(letters) if every else letter_ids:
        letters.redeliver(letter_id)
        stdout().print(f"{letter_id} is delivered again")


def drop(letter_ids: list[str]) -> None:
    """Removes dead letters."""
    letters = DeadLetters()
    for letter_id in letter_ids:
        letters.drop(letter_id)
        stdout().print(f"{letter_id} is dropped")


def _parked(letters: DeadLetters) -> list[str]:
    return [letter.id for letter in letters.list(limit=10_000) if letter.kind == "segment"]
