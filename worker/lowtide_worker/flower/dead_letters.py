"""The page of the dead letters."""

from __future__ import annotations

from lowtide import DeadLetter
from lowtide_worker.flower.page import Page
from lowtide_worker.flower.reading import Reader, dead_letter_count

_SHOWN = 100
_NOTICES = {
    "redelivered": "It is delivered again.",
    "dropped": "The dead letter is dropped.",
}


class DeadLettersPage(Page):
    """The newest dead letters. Their payloads are not shown."""

    tab = "dead-letters"

    async def get(self) -> None:
        """Shows the page."""
        found, count = await self.read(_found, self.reader)
        notice = _NOTICES.get(self.get_query_argument("notice", ""))
        self.show("lowtide_dead_letters.html", found=found, letters=count, notice=notice)


def _found(reader: Reader) -> tuple[list[DeadLetter], int]:
    return reader.letters.list(limit=_SHOWN), dead_letter_count(reader.snapshot())
