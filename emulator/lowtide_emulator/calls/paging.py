"""Pages of a list. They stay stable while new items are added in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from starlette.requests import Request

from lowtide_emulator.calls.errors import RefusalError

T = TypeVar("T")

TOKEN_PREFIX = "after-"  # noqa: S105 - a page token is no secret


def page_size(request: Request, largest: int, *, default: int) -> tuple[int, int | None]:
    """Returns the size of a page and the number of the last item on the page before; None for the first page."""
    query = request.query_params
    size_text = query.get("pageSize") or query.get("page_size") or "0"
    token = query.get("pageToken") or query.get("page_token") or ""
    try:
        size = int(size_text)
        before = int(token.removeprefix(TOKEN_PREFIX)) if token else None
    except ValueError as error:
        raise RefusalError(400, f"Invalid page size or page token: {error}") from error
    if size < 0:
        raise RefusalError(400, "The page size must not be negative.")
    return min(size or default, largest), before


def page(items: Iterator[T], size: int, number: Callable[[T], int]) -> tuple[list[T], str | None]:
    """Returns the first `size` items and the token of the next page; None on the last page."""
    shown: list[T] = []
    for item in items:
        if len(shown) == size:
            return shown, f"{TOKEN_PREFIX}{number(shown[-1])}"
        shown.append(item)
    return shown, None
