"""Every error Lowtide raises, in one hierarchy.

Catch `LowtideError` to catch them all. A message names what is wrong and what to do about it, and
never holds a secret.
"""

from __future__ import annotations

from functools import partial
from typing import NoReturn


class LowtideError(Exception):
    """Base of all errors raised by Lowtide."""


class InvalidRequest(LowtideError):
    """A request that cannot be sent as it is. Raised by `submit`; nothing was stored or sent.

    `position` is the 0-based place of the request in what was submitted (a file's line is
    `position + 1`), `key` its key where one could be read, `field` the dotted path of the field.
    `source` is the URI of the object or table that holds it, where that is where it came from.
    """

    def __init__(self, reason: str, *, field: str, position: int = 0, key: str | None = None) -> None:
        self.reason = reason
        self.field = field
        self.position = position
        self.key = key
        self.source: str | None = None
        super().__init__(reason)

    def __str__(self) -> str:
        name = "" if self.key is None else f' (key "{self.key}")'
        source = f"{self.source}, " if self.source else ""
        return f"{source}request {self.position + 1}{name}, {self.field}: {self.reason}"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(InvalidRequest, field=self.field, position=self.position, key=self.key), (self.reason,)


def refuse(reason: str, field: str) -> NoReturn:
    """Raises `InvalidRequest`."""
    raise InvalidRequest(reason, field=field)


class InvalidBatch(LowtideError):
    """Options of a batch that cannot be used: an unknown handler, an empty batch, a bad label."""


class SourceError(LowtideError):
    """A source or destination in Google Cloud that is missing, forbidden, out of reach, or not empty.

    `transient` is whether the same may work a little later, as where Google Cloud could not be reached.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(reason)


class IdempotencyConflict(LowtideError):
    """The idempotency key already belongs to a batch with other content."""


class BatchNotFound(LowtideError):
    """No batch of this id: never submitted here, or deleted."""


class DeadLetterNotFound(LowtideError):
    """No dead letter of this id: redelivered, dropped, or never there."""


class BatchNotFinished(LowtideError):
    """The operation needs a finished batch."""


class WaitTimeout(LowtideError, TimeoutError):
    """The batch did not finish within the time that `wait` was given. It goes on running."""


class StoreUnavailable(LowtideError):
    """Redis did not answer, or refused the command.

    Of `submit`: the batch may be recorded all the same. Submitting again with the same idempotency key is safe.
    """


class InstallationMismatch(LowtideError):
    """Redis and spool do not belong together: one of them is another installation's, or was emptied."""


class UnsupportedServer(LowtideError):
    """Redis is older than Lowtide can work with. Nothing was written to it."""


class SpoolError(LowtideError):
    """The spool could not be read or written."""


class OutsideRoot(SpoolError):
    """A path or URL that is not under a configured root; it was not opened."""
