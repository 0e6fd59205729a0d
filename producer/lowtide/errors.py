"""Every error Lowtide raises, in one hierarchy.

Catch `LowtideError` to catch them all. A message says what is wrong and how to fix it, and never has a secret in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn, Self

from lowtide.redaction import redacted


class LowtideError(Exception):
    """Base of all errors raised by Lowtide.

    - `batch`: for `submit_many`, the place (0-based) of the batch that caused the error; else None.
    """

    batch: int | None = None

    def __str__(self) -> str:
        # Many a message has the text of another library's error at its end.
        return redacted(f"{self._place()}{super().__str__()}")

    def _place(self) -> str:
        return "" if self.batch is None else f"batch {self.batch + 1} of the call: "


class InvalidRequest(LowtideError):
    """A request that cannot be sent as it is. Raised by `submit`; nothing was stored or sent.

    - `reason`: the problem, in words.
    - `field`: the dotted path of the field.
    - `position`: the place (0-based) of the request in the input; a file's line is `position + 1`.
    - `key`: the request's key; None where it could not be read.
    - `source`: the URI of the object or table that holds the request; None for requests from elsewhere.
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
        return f"{self._place()}{source}request {self.position + 1}{name}, {self.field}: {self.reason}"

    def at(self, position: int, key: str | None) -> Self:
        """Sets the position and the key, which are known only where the request is counted; returns this error."""
        self.position, self.key = position, key
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return partial(InvalidRequest, field=self.field, position=self.position, key=self.key), (self.reason,)


@contextmanager
def placed(batch: int) -> Iterator[None]:
    """Gives an error of the block the place (0-based) of the batch that causes it, among many."""
    try:
        yield
    except LowtideError as error:
        error.batch = batch
        raise
    except TypeError as error:  # of an option that does not exist
        error.batch = batch  # type: ignore[attr-defined]
        error.add_note(f"It is of batch {batch + 1} of the call.")
        raise


def refuse(reason: str, field: str) -> NoReturn:
    """Raises `InvalidRequest` for a field (a dotted path), without its position."""
    raise InvalidRequest(reason, field=field)


def uncodable(error: RecursionError | UnicodeEncodeError) -> InvalidRequest:
    """Returns the refusal of a request that no codec can write, without its position."""
    if isinstance(error, RecursionError):
        return InvalidRequest("nested too deeply; use fewer levels", field="request")
    half = error.object[error.start : error.end]
    reason = f"has a lone surrogate (half a character), which UTF-8 cannot hold: {half!a}; replace it"
    return InvalidRequest(reason, field="request")


def too_large(size: int, most: int) -> InvalidRequest:
    """Returns the refusal of a request of `size` bytes where a job may hold `most`, without its position."""
    return InvalidRequest(f"{size:,} bytes, more than the {most:,} that one job may hold; shorten it", field="request")


class InvalidSettings(LowtideError):
    """Settings that cannot be used. The message names each variable and what to write; it has no value of any."""


class InvalidBatch(LowtideError):
    """Options of a batch that cannot be used: an unknown handler, an empty batch, a bad label."""


class SourceError(LowtideError):
    """A source or destination in Google Cloud that is missing, forbidden, unreachable, or not empty.

    - `transient`: whether the same call may succeed later, for example after Google Cloud could not be reached.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(reason)


class IdempotencyConflict(LowtideError):
    """The idempotency key already belongs to a batch with other content."""


class BatchNotFound(LowtideError):
    """No batch of this id: never submitted here, or deleted."""


class KeyNotFound(LowtideError):
    """The batch has no request with this key."""


class ResultNotReady(LowtideError):
    """The request has no result yet. It gets one, at the latest when its batch is finished."""


class TicketNotFound(LowtideError):
    """No ticket of this id: `add` never returned it here, or its result is not kept any more."""


class QueueFull(LowtideError):
    """As many singles wait to be gathered as may wait, so `add` has recorded nothing.

    - `waiting`: the number of singles that wait.
    - `most`: `LOWTIDE_MAX_SINGLES_WAITING`.
    """

    def __init__(self, waiting: int, most: int) -> None:
        self.waiting = waiting
        self.most = most
        super().__init__(
            f"{waiting:,} singles wait to be gathered, and LOWTIDE_MAX_SINGLES_WAITING is {most:,}: start workers, "
            "raise the limit, or have add wait with block=SECONDS"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return QueueFull, (self.waiting, self.most)


class DeadLetterNotFound(LowtideError):
    """No dead letter of this id: it was redelivered or dropped, or never existed."""


class BatchNotFinished(LowtideError):
    """The operation needs a finished batch."""


class WaitTimeout(LowtideError, TimeoutError):
    """The batch, or the request of a ticket, did not finish within the timeout. It continues to run."""


class ResultsFailed(LowtideError):
    """A handler's function did not take results, and Lowtide has them back.

    A task that `result_handler` made fails with it, so that Celery and Flower show the failure. The results come again,
    until they are parked. The log of the handler's worker has the function's own error.
    """


class StoreUnavailable(LowtideError):
    """Redis did not answer, or refused the command.

    After `submit` raised it, the batch may be recorded or not. To submit again with the same idempotency key is safe.
    """


class InstallationMismatch(LowtideError):
    """Redis and spool do not belong together: one of them is from another installation, or was emptied."""


class UnsupportedServer(LowtideError):
    """Redis is older than Lowtide can work with, or its user lacks a permission. Nothing was written to it."""


class SpoolError(LowtideError):
    """The spool could not be read or written."""


class OutsideRoot(SpoolError):
    """A path or URL outside the configured root. It was not opened."""
