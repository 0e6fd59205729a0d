"""The kinds of faults: one struct each, whose fields are the kind's parameters.

Kinds for calls change one call and its reply. Kinds for jobs change the end of a job and its results. Rows that are
chosen by `count` or `fraction` are spread evenly over the job and are the same on every run; `count` wins if both are
given.
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
    """A kind that hits a part of a job's rows."""

    count: Count | None = None
    fraction: Fraction | None = None

    def of(self, rows: int) -> int:
        """Returns the number of rows that are hit, out of `rows`; by default one."""
        if self.count is not None:
            return min(self.count, rows)
        if self.fraction is not None:
            return round(self.fraction * rows)
        return min(1, rows)


class SomeRowsDone(Kind, frozen=True, kw_only=True):
    """A kind that ends the work early. The first `fraction` of the rows is still delivered."""

    fraction: Fraction = 0.0


# Calls


class DropBefore(Kind, frozen=True):
    """The connection is closed before the call has any effect."""


class DropAfter(Kind, frozen=True):
    """The call takes effect, then the connection is closed without a reply."""


class Status(Kind, frozen=True, kw_only=True):
    """The reply is an error.

    code: the HTTP status.
    message: the text for the caller.
    non_json: whether the body is plain text, as front ends send it, instead of the error envelope.
    done: whether the call takes effect in spite of the error.
    """

    code: Annotated[int, Meta(ge=300, le=599)] = 503
    message: str = "The service is currently unavailable."
    non_json: bool = False
    done: bool = False


class Delay(Kind, frozen=True, kw_only=True):
    """The call is delayed by `seconds` of real time."""

    seconds: Seconds


class Truncate(Kind, frozen=True, kw_only=True):
    """The connection is closed after `bytes` bytes of the reply's body."""

    bytes: Count = 0


class Body(Kind, frozen=True, kw_only=True):
    """The reply has status 200 and another body, as a proxy or a front end may send it."""

    text: str = ""


class Headers(Kind, frozen=True, kw_only=True):
    """The reply has these headers in place of its own, or lacks those that are null.

    So a download may name another range, size or ETag than that of its bytes.
    """

    headers: dict[str, str | None]


class EmptyListLag(Kind, frozen=True, kw_only=True):
    """The list omits jobs that are younger than `seconds` of the emulated clock."""

    seconds: Seconds


# The end of a job


class StuckPending(Kind, frozen=True):
    """The job never runs, and expires."""


class StuckRunning(SomeRowsDone, frozen=True, kw_only=True):
    """The job runs but never finishes, and expires."""


class Fail(SomeRowsDone, frozen=True, kw_only=True):
    """The job ends FAILED with this error."""

    code: int = 13
    message: str = "Internal error encountered."


class Expire(SomeRowsDone, frozen=True, kw_only=True):
    """The job ends EXPIRED at the time when it should succeed."""


class Cancel(SomeRowsDone, frozen=True, kw_only=True):
    """The job ends CANCELLED without a cancel call."""


class PartialOutput(SomeRowsDone, frozen=True, kw_only=True):
    """The job ends SUCCEEDED, or in Vertex AI's other `state`, with only a part of its rows."""

    fraction: Fraction = 0.5
    state: Literal["SUCCEEDED", "PARTIALLY_SUCCEEDED"] = "SUCCEEDED"


class ImportFails(Kind, frozen=True, kw_only=True):
    """The job ends FAILED because the importer cannot load the input. Vertex AI only."""

    reason: str = "JSON table encountered too many errors, giving up."


class NoOutput(Kind, frozen=True, kw_only=True):
    """The job ends without output, which appears after `seconds`, or never if null.

    announced: whether the job reports the place of its output at once. Vertex AI only.
    """

    seconds: Seconds | None = None
    announced: bool = False


class LateOutput(Kind, frozen=True, kw_only=True):
    """The job ends and names its output, of which only a `fraction` is there; the whole is there after `seconds`.

    The fraction is one of a table's rows, or of the shards. A single object is empty at first. Vertex AI only.
    """

    seconds: Seconds
    fraction: Fraction = 0.0


class RewrittenOutput(Kind, frozen=True, kw_only=True):
    """The job's output is written again `seconds` after its end, with the rows in the reverse order. Vertex AI only."""

    seconds: Seconds


class State(Kind, frozen=True, kw_only=True):
    """The job reports `state` for `seconds` from its creation, or for ever if null. Any text is allowed.

    Vertex AI's states begin with `JOB_STATE_`, the Developer API's with `BATCH_STATE_`. Jobs of Vertex AI turn the
    second form into the first.
    """

    state: str
    seconds: Seconds | None = None


# The rows of a job


class AllRowsFail(Kind, frozen=True, kw_only=True):
    """The job ends SUCCEEDED although every row is an error."""

    code: int = 3
    message: str = "Request contains an invalid argument."


class MissingRows(SomeRows, frozen=True, kw_only=True):
    """Rows are answered and billed but missing in the results."""


class DuplicateRows(SomeRows, frozen=True, kw_only=True):
    """Rows appear twice."""


class ForeignRows(SomeRows, frozen=True, kw_only=True):
    """Rows that are not in the input are added at the end, with keys `foreign-<n>`."""


class MalformedRows(SomeRows, frozen=True, kw_only=True):
    """Lines are cut in the middle but keep their line break. Files only."""


class SwapKeys(SomeRows, frozen=True, kw_only=True):
    """Neighbouring rows have swapped keys; `count` and `fraction` are of pairs."""


class RowErrorDetails(SomeRows, frozen=True, kw_only=True):
    """Rows are errors with objects in `details`, which SDK 3.4.0 cannot parse in inline results."""

    code: int = 3
    message: str = "Request contains an invalid argument."


class Shuffle(Kind, frozen=True, kw_only=True):
    """Rows are in another order."""

    seed: int = 0


class TruncatedLastLine(Kind, frozen=True):
    """The last line is cut in the middle and has no line break. Files only."""


class MissingMetadata(SomeRows, frozen=True, kw_only=True):
    """Rows have no key; inline rows have no `metadata`."""


# The events of webhooks


class Lost(Kind, frozen=True):
    """The event is never sent."""


class Late(Kind, frozen=True, kw_only=True):
    """The event is sent `seconds` of real time late."""

    seconds: Seconds


class Doubled(Kind, frozen=True):
    """The event is sent twice, under one id."""


class OutOfOrder(Kind, frozen=True, kw_only=True):
    """The event is held for `seconds` of real time, so that those of later jobs overtake it."""

    seconds: Seconds = 0.5


class Forged(Kind, frozen=True):
    """The event has a signature of other bytes, or by another key."""


class Replayed(Kind, frozen=True, kw_only=True):
    """The event is followed by a copy with the same id, validly signed and `age_seconds` old."""

    age_seconds: Seconds = 0.0


class WrongAudience(Kind, frozen=True):
    """The event's JSON Web Token is for another audience."""


class WrongKey(Kind, frozen=True):
    """The event is signed by a key that is not published."""


class RotatedKey(Kind, frozen=True):
    """The service has new keys from this event on."""


class Flood(Kind, frozen=True, kw_only=True):
    """The event is sent `count` times, each time under an id of its own."""

    count: Count = 100


CALL_KINDS: dict[str, type[Kind]] = {
    "drop_before": DropBefore,
    "drop_after": DropAfter,
    "status": Status,
    "delay": Delay,
    "truncate": Truncate,
    "body": Body,
    "headers": Headers,
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
    "late_output": LateOutput,
    "rewritten_output": RewrittenOutput,
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
WEBHOOK_KINDS: dict[str, type[Kind]] = {
    "lost": Lost,
    "late": Late,
    "doubled": Doubled,
    "out_of_order": OutOfOrder,
    "forged": Forged,
    "replayed": Replayed,
    "wrong_audience": WrongAudience,
    "wrong_key": WrongKey,
    "rotated_key": RotatedKey,
    "flood": Flood,
}
