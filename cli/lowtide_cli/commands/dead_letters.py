"""`lowtide dead-letters`: segments and batch events that no handler took, and messages that no worker could process."""

from __future__ import annotations

from rich.text import Text

from lowtide import DeadLetter, DeadLetters
from lowtide.models import to_builtins
from lowtide.text import on_one_line
from lowtide_cli.terminal.layout import print_facts, print_words
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
    for letter in letters:
        # The id has its line, because a divided one cannot be copied.
        console.print(letter.id, style="bold", markup=False, soft_wrap=True)
        handler = letter.detail.get("handler") if letter.parked else None
        whose = f" for {handler}" if handler else ""
        remark = on_one_line(f"{letter.kind}{whose}, {ago(letter.time)}: {letter.reason}")
        print_words(console, Text(remark), start=Text("  "))


def show_letter(letter_id: str, *, as_json: bool) -> None:
    """Prints all details of one dead letter."""
    letter = DeadLetters().get(letter_id)
    if as_json:
        print_json(to_builtins(letter))
        return
    print_facts(stdout(), _facts(letter))


def _facts(letter: DeadLetter) -> dict[str, str]:
    return {
        "id": letter.id,
        "kind": letter.kind,
        "since": local_time(letter.time),
        "reason": letter.reason,
        "batch": letter.batch_id or "",
        **{name: str(value) for name, value in letter.detail.items() if value is not None},
    }


def redeliver(letter_ids: list[str], *, every: bool) -> None:
    """Delivers parked segments and batch events to their handlers again, all of them if `every` is true."""
    letters = DeadLetters()
    found = _parked(letters) if every else letter_ids
    if not found:
        stdout().print("no dead letters to deliver again")
    for letter_id in found:
        letters.redeliver(letter_id)
        stdout().print(f"{letter_id} is delivered again", markup=False, soft_wrap=True)


def drop(letter_ids: list[str]) -> None:
    """Removes dead letters."""
    letters = DeadLetters()
    for letter_id in letter_ids:
        letters.drop(letter_id)
        stdout().print(f"{letter_id} is dropped", markup=False, soft_wrap=True)


def _parked(letters: DeadLetters) -> list[str]:
    return [letter.id for letter in letters.list(limit=10_000) if letter.parked]
