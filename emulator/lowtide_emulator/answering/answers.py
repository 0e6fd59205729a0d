"""The protocol for models, the possible replies to a row, and the models that users provide.

The built-in models are in `text_model` and `embeddings`. A user's function or a set of fixed answers can replace them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import msgspec
from msgspec import Raw

Json = dict[str, object]


class RowError(msgspec.Struct, omit_defaults=True):
    """The error of a row.

    code: the gRPC code (3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, 13 INTERNAL, …), not the HTTP status.
    message: the text for the caller.
    details: messages of `google.rpc`.
    """

    code: int
    message: str = ""
    details: list[Json] = []


class Oddity(msgspec.Struct, frozen=True):
    """A reply that is neither a response nor an error: a `status`, or nothing."""

    status: RowError | None = None


Answer = Callable[[Json], Json | RowError | None]
"""A user's model: it takes a request as it was sent, and returns a response or an error."""

Reply = msgspec.Struct | Raw | Json | RowError | Oddity | None


class Answerer(Protocol):
    """A model that answers the rows of one job."""

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        ...


class UserModel:
    """A user's function as a model. Its exceptions become row errors with code INTERNAL."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        del key
        try:
            return self._answer(cast("Json", msgspec.json.decode(request)))
        except Exception as error:  # noqa: BLE001 - one bad row must not stop the emulator
            return RowError(13, f"the answer function raised {type(error).__name__}: {error}")


class CannedModel:
    """Fixed answers by key; another model answers the other rows."""

    def __init__(self, canned: dict[str, Raw | RowError], rest: Answerer) -> None:
        self._canned = canned
        self._rest = rest

    def reply(self, key: str | None, request: Raw) -> Reply:
        """Returns the response to a request, or an error."""
        if key is not None and key in self._canned:
            return self._canned[key]
        return self._rest.reply(key, request)
