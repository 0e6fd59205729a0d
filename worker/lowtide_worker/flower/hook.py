"""The hook into Flower: its list of routes and its settings, before Flower makes its web application of them."""

from __future__ import annotations

import logging

from lowtide_worker.events import Event
from lowtide_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def add_pages(settings: WorkerSettings) -> None:
    """Adds the pages to the Flower of this process, which must not have started yet.

    Neither the list nor the settings are documented by Flower. Where they are gone, Flower starts without the pages.
    """
    try:
        # Deferred: only the host of Flower has the package.
        from flower import urls

        from lowtide_worker.flower.reading import Reader
        from lowtide_worker.flower.routes import routes
        from lowtide_worker.flower.templating import loader

        pages = routes(Reader(settings))
        templates = loader(urls.settings["template_path"])
        # The last route of Flower takes every path.
        urls.handlers[-1:-1] = pages
        urls.settings["template_loader"] = templates
    except Exception:
        log.exception("Flower has no pages of Lowtide", extra=Event.FLOWER_PAGES_UNAVAILABLE.extra)
