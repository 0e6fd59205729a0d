"""The iterator over all pages of a provider's list, with a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from lowtide.models import ResultError
from lowtide_worker.providers.protocol import Unavailable

T = TypeVar("T")
MOST_PAGES = 10_000
"""A million jobs or files, at a hundred per page."""


def every(
    page_of: Callable[[str | None], tuple[list[T], str | None]],
    keep: Callable[[], None] = lambda: None,
    most: int = MOST_PAGES,
) -> Iterator[T]:
    """Yields the items of all pages of a list.

    - `page_of`: returns the page for a page token (None: the first page) and the token of the next one (None: no more).
    - `keep`: called after each page, to renew the lease.
    - `most`: the highest number of pages.

    Raises `Unavailable` if a page token comes twice, or if there are more than `most` pages.
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
                ResultError(reason="ENDLESS_LIST", message="the provider's list leads back to one of its pages")
            )
        seen.add(token)
    raise Unavailable(ResultError(reason="ENDLESS_LIST", message=f"the provider's list has more than {most:,} pages"))
