"""All pages of a list that somebody else keeps, with an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from lowtide.models import ResultError
from lowtide_worker.providers.protocol import Unavailable

T = TypeVar("T")
MOST_PAGES = 10_000
"""A million jobs or files at a hundred a page."""


def every(
    page_of: Callable[[str | None], tuple[list[T], str | None]],
    keep: Callable[[], None] = lambda: None,
    most: int = MOST_PAGES,
) -> Iterator[T]:
    """The items of all pages; `page_of` gives the page of a token and the next one's, `keep` is called after each.

    Raises `Unavailable` where the list has no end: a token comes again, or there are more than `most` pages.
    """
    seen: set[str] = set()
    token: str | None = None
    for _ in range(most):
        page, token = page_of(token)
        keep()
        yield from page
        if token is None:
            return
        if token in seen:
            raise Unavailable(
                ResultError(reason="ENDLESS_LIST", message="the provider's list leads back to a page of it")
            )
        seen.add(token)
    raise Unavailable(ResultError(reason="ENDLESS_LIST", message=f"the provider's list has more than {most:,} pages"))
