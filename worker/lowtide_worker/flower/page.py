"""The base of all pages: the login, the protection of changes, reading in a thread, and errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, authenticated

from lowtide.errors import BatchNotFinished, BatchNotFound, DeadLetterNotFound, LowtideError
from lowtide_worker.flower import formats
from lowtide_worker.flower.reading import Reader

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")
_STATUS = {BatchNotFound: 404, DeadLetterNotFound: 404, BatchNotFinished: 409}
_UNAVAILABLE = 503
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Nothing is loaded from elsewhere, and no other site may show the pages in a frame. Flower's tables add styles."""


class Problem(HTTPError):
    """An error whose text is shown on a page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status)
        self.text = text


class Page(BaseHandler):
    """One page of Lowtide. Everything on it needs Flower's login."""

    tab: ClassVar[str] = "batches"
    """The part of Lowtide's pages that it belongs to."""

    def initialize(self, reader: Reader) -> None:
        """Takes what the route gives."""
        self.reader = reader

    def set_default_headers(self) -> None:
        """Sets the headers of every answer."""
        super().set_default_headers()
        # Flower without a login lets other sites read it. These pages do not.
        self.clear_header("Access-Control-Allow-Origin")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    @authenticated
    def prepare(self) -> None:
        """Runs before every method, after the check of the login."""
        if self.request.method not in ("GET", "HEAD", "OPTIONS"):
            if not self.may_change:
                raise Problem(403, "This Flower has no login, so nothing can be changed here. Run `lowtide flower`.")
            # Of a Flower without OAuth, neither 2.1 nor 2.2 asks for the token.
            RequestHandler.check_xsrf_cookie(self)

    @property
    def may_change(self) -> bool:
        """Whether changes are allowed: not where every visitor of Flower could make them."""
        options = self.application.options
        return bool(options.basic_auth or options.auth)

    async def read(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Answer:
        """Calls a function that blocks, on a thread. Raises `Problem` for the errors that a page can explain."""
        try:
            return await asyncio.to_thread(function, *args, **named)
        except LowtideError as error:
            raise Problem(_STATUS.get(type(error), _UNAVAILABLE), str(error)) from error

    def show(self, template: str, **view: Any) -> None:
        """Renders a page of Lowtide."""
        self.render(template, fmt=formats, tab=self.tab, **view)

    def write_error(self, status_code: int, **info: Any) -> None:
        """Shows a problem in words. Flower shows all other errors."""
        problem = info.get("exc_info", (None, None))[1]
        if not isinstance(problem, Problem):
            super().write_error(status_code, **info)
            return
        self.show("lowtide_problem.html", status=status_code, text=problem.text, letters=None)
