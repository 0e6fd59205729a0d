"""The addresses of the pages."""

from __future__ import annotations

from pathlib import Path

from tornado.routing import URLSpec
from tornado.web import StaticFileHandler

from lowtide.protocol import BATCH_ID
from lowtide_worker.flower.account import AccountPage
from lowtide_worker.flower.batches import BatchesPage, BatchPage
from lowtide_worker.flower.changes import CancelBatch, DeleteBatch, DropLetter, RedeliverLetter
from lowtide_worker.flower.dead_letters import DeadLettersPage
from lowtide_worker.flower.reading import Reader

_STATIC = Path(__file__).parent / "static"


def routes(reader: Reader) -> list[URLSpec]:
    """Returns the routes of all pages. They have names, as Flower may put a prefix before their paths."""
    given = {"reader": reader}
    batch = f"/lowtide/batch/({BATCH_ID.pattern})"
    return [
        URLSpec("/lowtide", BatchesPage, given, "lowtide"),
        URLSpec("/lowtide/", BatchesPage, given),
        URLSpec(batch, BatchPage, given, "lowtide-batch"),
        URLSpec(f"{batch}/cancel", CancelBatch, given, "lowtide-cancel"),
        URLSpec(f"{batch}/delete", DeleteBatch, given, "lowtide-delete"),
        URLSpec("/lowtide/account", AccountPage, given, "lowtide-account"),
        URLSpec("/lowtide/dead-letters", DeadLettersPage, given, "lowtide-dead-letters"),
        URLSpec("/lowtide/dead-letters/redeliver", RedeliverLetter, given, "lowtide-redeliver"),
        URLSpec("/lowtide/dead-letters/drop", DropLetter, given, "lowtide-drop"),
        # The two files hold no data, so they need no login.
        URLSpec("/lowtide/static/(.+)", StaticFileHandler, {"path": str(_STATIC)}, "lowtide-static"),
    ]
