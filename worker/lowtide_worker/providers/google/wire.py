"""Readers of single values in Google's JSON.

The provider's answers are untrusted: a value of the wrong type counts as missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lowtide.models import ResultError
from lowtide.states import JobState

# Lowtide's own words: one day the provider may use them for something else.
_OURS = frozenset({JobState.PLANNED, JobState.CREATING, JobState.UNKNOWN, JobState.LOST})
_STATES = {state.value: state for state in JobState if state not in _OURS}

_GRPC = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
GRPC_CODES = {name: code for code, name in _GRPC.items()}
"""The canonical gRPC codes by their names (google.rpc.Code)."""


def job_state(raw: str) -> JobState:
    """Returns the state for a word on the wire, `JOB_STATE_*` or `BATCH_STATE_*`; UNKNOWN for an unknown word."""
    word = raw.lower().removeprefix("batch_state_").removeprefix("job_state_")
    return _STATES.get(word, JobState.UNKNOWN)


def status_error(value: Mapping[str, Any]) -> ResultError:
    """Returns a `google.rpc.Status` as a `ResultError`. The reason is its status, else the name of its gRPC code."""
    code = value.get("code")
    number = int(str(code)) if re.fullmatch(r"-?[0-9]{1,9}", str(code)) else None
    return ResultError(
        reason=str(value.get("status") or _GRPC.get(number or -1, "ERROR")),
        message=str(value.get("message") or "the provider gave no message"),
        code=number,
    )


def as_object(value: object) -> Mapping[str, Any]:
    """Returns the value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str | None:
    """Returns the value if it is a string, else None."""
    return value if isinstance(value, str) else None


def as_time(value: object) -> float | None:
    """Returns a time in RFC 3339 as Unix seconds; None for anything else."""
    try:
        # The fraction of a second does not matter, and may have nine digits.
        return datetime.fromisoformat(re.sub(r"\.[0-9]+", "", str(value))).timestamp()
    except (ValueError, OverflowError):
        return None


def as_count(value: object) -> int:
    """Returns a count, which Google's JSON may write as a string; 0 for any other value."""
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else 0


def either(value: Mapping[str, Any], camel: str, snake: str) -> Any:
    """Returns a field under its camelCase or its snake_case name; None where it has neither."""
    return value[camel] if camel in value else value.get(snake)
