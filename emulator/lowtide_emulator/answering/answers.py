"""Who answers a row, and what an answer can be.

The built-in models are in ``text_model`` and ``embeddings``; a function of the user's or a set of
fixed answers can take their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import msgspec
from msgspec import Raw

Json = dict[str, object]


class RowError(msgspec.Struct, omit_defaults=True):
    """A row the model did not answer.

    code: gRPC code (3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, 13 INTERNAL, …), not HTTP.
    message: for the caller to read.
    details: objects of the ``google.rpc`` kind.
    """

    code: int
    message: str = ""
    details: list[Json] = []


class Oddity(msgspec.Struct, frozen=True):
    """A row that is neither a response nor an error: ``status``, or nothing at all."""

    status: RowError | None = None


Answer = Callable[[Json], Json | RowError | None]
"""A user's own model: takes the request as it was sent, returns a response or an error."""

Reply = msgspec.Struct | Raw | Json | RowError | Oddity | None


class Answerer(Protocol):
    """Answers the rows of one job."""

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Return the response to a request, or the error."""
        ...


class UserModel:
    """Answers with the user's function; what it raises becomes an INTERNAL row error."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Return the response to a request, or the error."""
        del key
        try:
            return self._answer(cast("Json", msgspec.json.decode(request)))
        except Exception as error:  # noqa: BLE001 - one bad row must not stop the emulator
            return RowError(13, f"the answer function raised {type(error).__name__}: {error}")


class CannedModel:
    """Answers by key from a fixed set, and lets another model answer the rest."""

    def __init__(self, canned: dict[str, Raw | RowError], rest: Answerer) -> None:
        self._canned = canned
        self._rest = rest

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Return the response to a request, or the error."""
        if key is not None and key in self._canned:
            return self._canned[key]
        return self._rest.reply(key, request)
