"""Readers of list pages and of output lines, which isolate an unreadable item from the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from lowtide.protocol import DISPLAY_PREFIX
from lowtide_worker.events import Event
from lowtide_worker.providers.google.wire import as_object, as_text, either
from lowtide_worker.providers.protocol import OutputRow

log = logging.getLogger(__name__)

_MOST_UNREADABLE = 1000
"""Unreadable items that a process remembers; further ones are neither logged nor counted."""

Item = TypeVar("Item")
Line = TypeVar("Line")


def as_page(reply: object) -> Mapping[str, Any]:
    """Returns the reply of a list call. Raises `ValueError` for a reply that is no page: it must not count as empty."""
    if not isinstance(reply, Mapping):
        raise ValueError(f"the provider's reply is not a page of a list: {reply!r:.100}")  # noqa: TRY004
    return reply


class PageReader:
    """The reader of a list's pages, item by item: an unreadable item is skipped and hides no other."""

    def __init__(self) -> None:
        self.unreadable: set[str] = set()
        """The items that were skipped, as text. Each is logged once."""

    def read(self, items: object, read: Callable[[object], Item], *, needed: str | None = None) -> list[Item]:
        """Returns the readable items of a page.

        - `items`: the page's list, as it came.
        - `read`: turns one item into its struct; whatever it raises makes the item unreadable.
        - `needed`: the display name of a job that the caller searches for.

        Raises `ValueError` if `items` is no list, or if the unreadable item is the job `needed`: that job exists, and
        must not count as missing.
        """
        if not isinstance(items, list):
            raise ValueError(f"the provider's reply is not a page of a list: {items!r:.100}")  # noqa: TRY004
        found: list[Item] = []
        for item in items:
            try:
                found.append(read(item))
            except Exception as error:
                name = _display_name(item)
                if needed is not None and name == needed:
                    raise ValueError(f"the job {needed} cannot be read: {error}") from error
                self._skip(item, name, error)
        return found

    def _skip(self, item: object, name: str | None, error: Exception) -> None:
        text = f"{item!r:.300}"
        if text in self.unreadable or len(self.unreadable) >= _MOST_UNREADABLE:
            return
        self.unreadable.add(text)
        level = logging.ERROR if (name or "").startswith(DISPLAY_PREFIX) else logging.WARNING
        skipped = "skipped an unreadable item of the provider's list: %s: %s"
        log.log(level, skipped, name, error, extra=Event.ITEM_PASSED_OVER.extra)


def _display_name(item: object) -> str | None:
    job = as_object(item)
    inner = as_object(job.get("metadata"))
    return as_text(either(inner, "displayName", "display_name") or either(job, "displayName", "display_name"))


class RowReader(Generic[Line]):
    """The reader of output lines in a provider's own shape.

    - `shape`: the struct of one line.
    - `row`: turns that struct into an `OutputRow`.
    """

    def __init__(self, shape: type[Line], row: Callable[[Line], OutputRow]) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._row = row

    def many(self, block: bytes) -> list[OutputRow]:
        """Returns the rows of many whole lines, decoded in one call. Raises `ValueError` if one of them is no row."""
        try:
            return [self._row(line) for line in self._decoder.decode_lines(block)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def one(self, line: bytes) -> OutputRow:
        """Returns the row of one line. Raises `ValueError` if it is no row."""
        try:
            return self._row(self._decoder.decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error
