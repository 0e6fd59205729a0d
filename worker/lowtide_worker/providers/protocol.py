"""What a provider is to the stages: this Protocol, its plain data and its kinds of failure.

The stages know nothing of Google. A provider turns its own wire shapes into these; everything it raises is one
of `Refused` (of which `Missing` is one), `Denied`, `Throttled` or `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol

import msgspec

from lowtide.models import ResultError
from lowtide.states import JobState, Kind
from lowtide_worker.deadlines import Deadline

_MAX_TOLD_CHARS = 1000
"""Of a provider's words, in logs and in the `problem` of a job."""


class ProviderError(Exception):
    """Base of a provider's failures."""

    def __init__(self, error: ResultError, *, http_status: int | None = None) -> None:
        self.error = error
        self.http_status = http_status
        super().__init__(f"{error.reason}: {error.message}"[:_MAX_TOLD_CHARS])


class Refused(ProviderError):
    """A definite no: asking the same again is useless, and nothing was done."""


class Missing(Refused):
    """The provider does not know the job or file."""


class Denied(ProviderError):
    """The credentials are not valid. Nothing was done, and nothing is wrong with the job: it waits for better ones."""


class Throttled(ProviderError):
    """A definite no for now: a quota is used up, and nothing was done."""


class Unavailable(ProviderError):
    """No answer, or none to rely on. After a create, the job may exist or not."""


@dataclass(frozen=True, kw_only=True)
class ProviderJob:
    """A job as the provider reports it."""

    name: str
    display_name: str | None
    state: JobState
    provider_state: str
    """The provider's own word for the state."""
    output: str | None = None
    """Where its output is, in the provider's terms; None where there is none (yet)."""
    error: ResultError | None = None
    model: str | None = None
    requests: int = 0
    done_requests: int = 0
    """Requests that the provider says are done, well or not."""
    create_time: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderInput:
    """An uploaded input as the provider reports it."""

    name: str
    display_name: str | None


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a provider needs to create a job. Exactly one of `input`, `lines` and `sources` is given."""

    model: str
    display_name: str
    kind: Kind = Kind.GENERATION
    input: str | None = None
    """An uploaded input, in the provider's terms."""
    lines: Iterable[bytes] | None = None
    """The request lines themselves, `{"key": ..., "request": ...}`, for an inline job."""
    size: int = 0
    """Most bytes that the call may carry beside its head."""
    sources: Sequence[str] = ()
    """Where the requests lie already, in the provider's terms: used in place, by none but this job."""
    destination: str | None = None
    """Where the user wants the output, in the provider's terms; None: wherever the provider keeps it for us."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of an ended job."""

    job: str
    """The provider's name of the job."""
    location: str
    """`ProviderJob.output`."""
    key: str = "key"
    """The column that holds a row's key, where the user's own table was used in place."""


class Part(NamedTuple):
    """A piece of output that can be read by ranges where it lies."""

    name: str
    size: int
    """In bytes."""


NO_RESPONSE = msgspec.Raw(b"null")


class OutputRow(msgspec.Struct, frozen=True, gc=False):
    """One row of output. Neither response nor error means that the provider gave nothing for the request."""

    key: str | None
    response: msgspec.Raw = NO_RESPONSE
    """The response as JSON, untouched."""
    error: ResultError | None = None


class Provider(Protocol):
    """One provider of batch jobs. Every method is synchronous, bounded in time and safe to call from threads."""

    def upload(self, display_name: str, data: IO[bytes]) -> str:
        """Uploads request lines; returns the input's name. `data` is seekable."""

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Whether an uploaded input can be used already. Raises `Refused` where it never will."""

    def create(self, job: NewJob, deadline: Deadline) -> ProviderJob:
        """Creates a job: one request on the wire, never repeated, and no byte of it after the deadline."""

    def get(self, name: str) -> ProviderJob:
        """The job as it is now. Raises `Missing`."""

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        """One page of the account's jobs, ours and foreign, and the next page's token.

        With a display name, a provider that can search leaves out the others. A job that cannot be read is passed over,
        unless it has that display name: then the page raises.
        """

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        """One page of all uploaded inputs of the account, ours and foreign, and the next page's token."""

    def unreadable_items(self) -> int:
        """How many items of pages this process has passed over because they could not be read, each counted once."""

    def cancel(self, name: str) -> None:
        """Asks the provider to stop a job."""

    def delete(self, name: str) -> None:
        """Deletes an ended job with its output, but not what lies where the user wanted it. Gone is no error."""

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """Deletes an uploaded input. One that is gone is no error."""

    def clear(self, display_name: str) -> None:
        """Deletes what else lies at the provider under a job's display name, all jobs of that name being gone."""

    def parts(self, output: Output) -> list[Part] | None:
        """What the output consists of, where it can be read in place by ranges; None: it must be downloaded."""

    def read(self, part: str, start: int, end: int) -> bytes:
        """The lines of a part of output that begin at its bytes [start, end), whole."""

    def download(self, output: Output, sink: IO[bytes]) -> None:
        """Streams a job's output, one JSON row a line, into `sink`."""

    def rows(self, block: bytes) -> list[OutputRow]:
        """Reads many whole lines of output at once. Raises `ValueError` if one of them is no row."""

    def row(self, line: bytes) -> OutputRow:
        """Reads one line of output. Raises `ValueError` for one that is no row."""
