"""What can go wrong: one struct a kind, its fields are the kind's parameters.

Kinds on calls hit the conversation, kinds on jobs hit the work: how it ends and what its
results file looks like. Wherever rows are chosen by ``count`` or ``fraction`` they are spread
evenly over the job and are the same on every run; ``count`` wins if both are given.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


class Kind(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A kind of fault."""


class SomeRows(Kind, frozen=True, kw_only=True):
    """A kind that strikes a share of a job's rows."""

    count: Count | None = None
    fraction: Fraction | None = None

    def of(self, rows: int) -> int:
        """Return how many of ``rows`` are struck; by default one."""
        if self.count is not None:
            return min(self.count, rows)
        if self.fraction is not None:
            return round(self.fraction * rows)
        return min(1, rows)


class SomeRowsDone(Kind, frozen=True, kw_only=True):
    """A kind that ends the work early: the first ``fraction`` of the rows are delivered all the same."""

    fraction: Fraction = 0.0


# Calls


class DropBefore(Kind, frozen=True):
    """The connection is closed and nothing was done."""


class DropAfter(Kind, frozen=True):
    """Everything was done, then the connection is closed without a reply."""


class Status(Kind, frozen=True, kw_only=True):
    """An error is the reply.

    code: HTTP status.
    message: for the caller to read.
    non_json: the body is a plain page, as front ends send it, not the envelope.
    done: the work is done all the same, so the error is a lie.
    """

    code: Annotated[int, Meta(ge=300, le=599)] = 503
    message: str = "The service is currently unavailable."
    non_json: bool = False
    done: bool = False


class Delay(Kind, frozen=True, kw_only=True):
    """The reply comes later, by real ``seconds``."""

    seconds: Seconds


class Truncate(Kind, frozen=True, kw_only=True):
    """The connection is closed after ``bytes`` bytes of the reply's body."""

    bytes: Count = 0


class Body(Kind, frozen=True, kw_only=True):
    """Another body is the reply, with status 200: what a proxy or a front end may put in the place of the real one."""

    text: str = ""


class EmptyListLag(Kind, frozen=True, kw_only=True):
    """The list leaves out jobs younger than ``seconds`` of the emulated clock."""

    seconds: Seconds


# The way of a job


class StuckPending(Kind, frozen=True):
    """Never runs; expires in the end."""


class StuckRunning(SomeRowsDone, frozen=True, kw_only=True):
    """Runs and never finishes; expires in the end."""


class Fail(SomeRowsDone, frozen=True, kw_only=True):
    """Ends FAILED with this error."""

    code: int = 13
    message: str = "Internal error encountered."


class Expire(SomeRowsDone, frozen=True, kw_only=True):
    """Ends EXPIRED when it should have succeeded."""


class Cancel(SomeRowsDone, frozen=True, kw_only=True):
    """Ends CANCELLED unasked."""


class PartialOutput(SomeRowsDone, frozen=True, kw_only=True):
    """Ends SUCCEEDED, or in Vertex AI's other ``state``, with only a part of the rows."""

    fraction: Fraction = 0.5
    state: Literal["SUCCEEDED", "PARTIALLY_SUCCEEDED"] = "SUCCEEDED"


class ImportFails(Kind, frozen=True, kw_only=True):
    """Vertex AI only: ends FAILED because the importer cannot load the input."""

    reason: str = "JSON table encountered too many errors, giving up."


class NoOutput(Kind, frozen=True, kw_only=True):
    """Ends without output; it appears after ``seconds``, or never if null.

    announced: Vertex AI only: the job names the place of its output all the same.
    """

    seconds: Seconds | None = None
    announced: bool = False


class State(Kind, frozen=True, kw_only=True):
    """Reports ``state``, whatever it means, for ``seconds`` from creation, or for ever if null.

    Vertex AI's states begin with ``JOB_STATE_``, the Developer API's with ``BATCH_STATE_``; Vertex AI
    reads the other as its own.
    """

    state: str
    seconds: Seconds | None = None


# The rows of a job


class AllRowsFail(Kind, frozen=True, kw_only=True):
    """Ends SUCCEEDED though every row is an error."""

    code: int = 3
    message: str = "Request contains an invalid argument."


class MissingRows(SomeRows, frozen=True, kw_only=True):
    """Rows are answered and paid but do not appear."""


class DuplicateRows(SomeRows, frozen=True, kw_only=True):
    """Rows appear twice."""


class ForeignRows(SomeRows, frozen=True, kw_only=True):
    """Rows nobody asked for are added at the end, under keys ``foreign-<n>``."""


class MalformedRows(SomeRows, frozen=True, kw_only=True):
    """Lines are cut in the middle, the line break stays. Files only."""


class SwapKeys(SomeRows, frozen=True, kw_only=True):
    """Pairs of neighbours have each other's key; counted in pairs."""


class RowErrorDetails(SomeRows, frozen=True, kw_only=True):
    """Rows are errors whose ``details`` hold objects, which SDK 3.4.0 cannot read inline."""

    code: int = 3
    message: str = "Request contains an invalid argument."


class Shuffle(Kind, frozen=True, kw_only=True):
    """Rows come in another order."""

    seed: int = 0


class TruncatedLastLine(Kind, frozen=True):
    """The last line is cut in the middle and has no line break. Files only."""


class MissingMetadata(SomeRows, frozen=True, kw_only=True):
    """Rows come back without their key; inline, without ``metadata``."""


CALL_KINDS: dict[str, type[Kind]] = {
    "drop_before": DropBefore,
    "drop_after": DropAfter,
    "status": Status,
    "delay": Delay,
    "truncate": Truncate,
    "body": Body,
}
LIST_KINDS: dict[str, type[Kind]] = {"empty_list_lag": EmptyListLag}
JOB_KINDS: dict[str, type[Kind]] = {
    "stuck_pending": StuckPending,
    "stuck_running": StuckRunning,
    "fail": Fail,
    "expire": Expire,
    "cancel": Cancel,
    "partial_output": PartialOutput,
    "import_fails": ImportFails,
    "no_output": NoOutput,
    "state": State,
    "all_rows_fail": AllRowsFail,
    "missing_rows": MissingRows,
    "duplicate_rows": DuplicateRows,
    "foreign_rows": ForeignRows,
    "malformed_rows": MalformedRows,
    "swap_keys": SwapKeys,
    "row_error_details": RowErrorDetails,
    "shuffle": Shuffle,
    "truncated_last_line": TruncatedLastLine,
    "missing_metadata": MissingMetadata,
}
