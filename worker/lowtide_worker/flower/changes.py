"""The changes that the pages can make. GET asks for confirmation, POST makes the change."""

from __future__ import annotations

from typing import ClassVar

from tornado.httputil import url_concat

from lowtide_worker.flower.page import Page, Problem

_MOST_CHARS = 500
"""Most characters of the id of a dead letter: far more than any has."""


class Change(Page):
    """One change of one thing."""

    verb: ClassVar[str]
    """The text of the button."""
    effect: ClassVar[str]
    """The effect of the change, for people."""
    danger: ClassVar[bool] = True

    def ask(self, *, thing: str, back: str, fields: dict[str, str]) -> None:
        """Shows the question, with a button that posts `fields`, and a link back."""
        self.show(
            "lowtide_confirm.html",
            thing=thing,
            verb=self.verb,
            effect=self.effect,
            danger=self.danger,
            back=back,
            fields=fields,
            letters=None,
        )

    def go(self, path: str, notice: str) -> None:
        """Sends the browser to a page, which it gets without a second post when it is reloaded."""
        self.redirect(url_concat(path, {"notice": notice}), status=303)


class BatchChange(Change):
    """A change of one batch."""

    async def get(self, batch_id: str) -> None:
        """Asks for confirmation."""
        await self.read(self.reader.queue.get, batch_id)
        self.ask(thing=batch_id, back=self.reverse_url("lowtide-batch", batch_id), fields={})


class CancelBatch(BatchChange):
    """Asks a batch to stop."""

    verb = "Cancel the batch"
    effect = "Results that exist are kept. The other requests end as cancelled."

    async def post(self, batch_id: str) -> None:
        """Cancels the batch."""
        batch = await self.read(self.reader.queue.get, batch_id)
        await self.read(batch.cancel)
        self.go(self.reverse_url("lowtide-batch", batch_id), "cancelled")


class DeleteBatch(BatchChange):
    """Deletes a finished batch."""

    verb = "Delete the batch"
    effect = "The batch, its requests and its results are removed, here and at the provider. This cannot be undone."

    async def post(self, batch_id: str) -> None:
        """Deletes the batch; the workers do it after the answer."""
        batch = await self.read(self.reader.queue.get, batch_id)
        await self.read(batch.delete)
        self.go(self.reverse_url("lowtide"), "deleted")


class LetterChange(Change):
    """A change of one dead letter."""

    tab = "dead-letters"

    async def get(self) -> None:
        """Asks for confirmation."""
        letter = _letter(self.get_query_argument("id", ""))
        self.ask(thing=letter, back=self.reverse_url("lowtide-dead-letters"), fields={"id": letter})


class RedeliverLetter(LetterChange):
    """Delivers a parked segment or batch event again."""

    verb = "Redeliver the dead letter"
    effect = "It is given to its handler again, and its attempts are counted from 1."
    danger = False

    async def post(self) -> None:
        """Redelivers the dead letter."""
        await self.read(self.reader.letters.redeliver, _letter(self.get_body_argument("id", "")))
        self.go(self.reverse_url("lowtide-dead-letters"), "redelivered")


class DropLetter(LetterChange):
    """Removes a dead letter."""

    verb = "Drop the dead letter"
    effect = "It is not delivered any more. Results that are stored stay."

    async def post(self) -> None:
        """Drops the dead letter."""
        await self.read(self.reader.letters.drop, _letter(self.get_body_argument("id", "")))
        self.go(self.reverse_url("lowtide-dead-letters"), "dropped")


def _letter(given: str) -> str:
    if not given or len(given) > _MOST_CHARS:
        raise Problem(400, "Give the id of a dead letter, as the list shows it.")
    return given
