"""Batches as commands are given them: by id, or with labels."""

from __future__ import annotations

import typer

from lowtide import Batch, BatchQueue
from lowtide.protocol import BATCH_ID, TicketId
from lowtide_cli.terminal import CommandError


def find(batch_id: str) -> Batch:
    """Returns the batch with this id. Raises `CommandError` or `LowtideError`."""
    if is_ticket(batch_id):
        raise CommandError(f"{batch_id} is a ticket: `lowtide ticket {batch_id}`")
    if not BATCH_ID.fullmatch(batch_id):
        raise CommandError(f"{batch_id!r} is not a batch id; `lowtide list` shows them")
    return BatchQueue().get(batch_id)


def is_ticket(text: str) -> bool:
    """Returns whether a text has the form of a ticket."""
    try:
        TicketId.parse(text)
    except ValueError:
        return False
    return True


def pairs(given: list[str], option: str, form: str) -> dict[str, str]:
    """Returns the values of an option that is repeated as `NAME=VALUE`. Raises `typer.BadParameter`."""
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair!r} is not {form}", param_hint=option)
        found[name] = value
    return found
