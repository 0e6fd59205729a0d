"""The interface between the stages and a provider: the `Provider` protocol, its plain data and its kinds of failure.

The stages know nothing of Google. A provider turns its own wire format into these types. Every error it raises is
`Refused` (or its subclass `Missing`), `Denied`, `Throttled` or `Unavailable`. docs/providers.md has the requirements
that a new provider must meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol

import msgspec

from lowtide.models import ResultError
from lowtide.protocol import Part
from lowtide.states import JobState, Kind
from lowtide_worker.deadlines import Deadline

_MAX_SHOWN_CHARS = 1000
"""Characters of a provider's message that logs and a job's `problem` show."""


class ProviderError(Exception):
    """The base class of a provider's failures.

    - `error`: the provider's reason, message and gRPC code; it is kept without secrets, and not longer than is shown.
    - `http_status`: the status of the reply; None where there was no reply.
    """

    def __init__(self, error: ResultError, *, http_status: int | None = None) -> None:
        self.error = error.shortened(_MAX_SHOWN_CHARS)
        self.http_status = http_status
        super().__init__(f"{self.error.reason}: {self.error.message}"[:_MAX_SHOWN_CHARS])


class Refused(ProviderError):
    """A final refusal: the same call would fail again. The provider has done nothing."""


class Missing(Refused):
    """The provider does not know the job, the file or the output."""


class Denied(ProviderError):
    """The credentials are invalid or lack a permission. The provider has done nothing.

    The job has not failed: it waits until the credentials are fixed.
    """


class Throttled(ProviderError):
    """A refusal for now: a quota is used up. The provider has done nothing."""


class Unavailable(ProviderError):
    """No answer, or an unreliable one. After a create, it is unknown whether the job exists."""


class IncompleteOutput(Unavailable):
    """Output that is announced, and that is not, or not yet, what the job reports.

    The caller fetches it again, for `output_grace_seconds`.
    """

    def __init__(self, why: str) -> None:
        message = f"the output is not what the job says: {why}"
        super().__init__(ResultError(reason="INCOMPLETE_OUTPUT", message=message))


@dataclass(frozen=True, kw_only=True)
class ProviderJob:
    """A job as the provider reports it."""

    name: str
    """The provider's name of the job, under which it is fetched, cancelled and deleted."""
    display_name: str | None
    """The name that Lowtide gave it in `NewJob`; of a foreign job, any text or None."""
    state: JobState
    provider_state: str
    """The provider's own word for the state."""
    output: str | None = None
    """The location of its output, in the provider's terms; None while there is none."""
    error: ResultError | None = None
    """The error with which the job as a whole ended."""
    model: str | None = None
    requests: int = 0
    """Requests in the job; 0 where the provider does not say."""
    done_requests: int = 0
    """Requests that the provider reports as done, succeeded or failed."""
    create_time: str | None = None
    """The provider's time of creation, as it came (RFC 3339)."""
    end_time: float | None = None
    """The time of its end by the provider's clock, in Unix seconds; None where the provider does not say."""


@dataclass(frozen=True, kw_only=True)
class ProviderInput:
    """An uploaded input as the provider reports it."""

    name: str
    """The provider's name of the input, under which jobs use it."""
    display_name: str | None


class Uploaded(NamedTuple):
    """The input that an upload has made."""

    name: str
    """The provider's name of the input, under which jobs use it."""
    ready: bool
    """Whether it can be used now, so that `Provider.ready` need not be asked."""


class Webhook(NamedTuple):
    """A request to the provider to report the end of a job."""

    url: str
    """The address to which the provider posts the event."""
    metadata: Mapping[str, str]
    """Data that the event repeats; it names Lowtide's job."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """The description of a job to create. Exactly one of `input`, `lines` and `sources` is given."""

    model: str
    display_name: str
    kind: Kind = Kind.GENERATION
    input: str | None = None
    """The name of an uploaded input, as `Provider.upload` returned it."""
    lines: Iterable[bytes] | None = None
    """The request lines themselves, `{"key": ..., "request": ...}`, for an inline job."""
    size: int = 0
    """The highest size of the request's body, in bytes."""
    sources: Sequence[str] = ()
    """URIs of the user's own requests, used in place, as `Provider.pin` returned them. Only this job uses them."""
    destination: str | None = None
    """The user's URI for the output; None: the provider's own place for Lowtide."""
    webhook: Webhook | None = None
    """The webhook by which the provider reports the job's end; only where it `has_webhooks`."""
    again: bool = False
    """Whether an earlier create of this display name may have made a job: the two must not share their output."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of an ended job."""

    job: str
    """The provider's name of the job."""
    location: str
    """The value of `ProviderJob.output`."""
    key: str = "key"
    """The column with the row's key. It differs from the default only where a user's table was used in place."""
    display_name: str | None = None
    """The job's display name. A place that carries it is the job's own, wherever it is."""
    rows: int = 0
    """Fewest rows that whole output has; 0: the output is accepted as it is."""


class Version(NamedTuple):
    """The identity of a file at the provider, as far as the provider gives it."""

    size: int | None = None
    """The size in bytes."""
    etag: str | None = None
    """The entity tag, as it came."""

    def contradicts(self, other: Version) -> bool:
        """Whether the two are certain to be of different contents."""
        return any(None not in pair and pair[0] != pair[1] for pair in zip(self, other, strict=True))


class Writer(Protocol):
    """A receiver of bytes."""

    def write(self, chunk: bytes | memoryview, /) -> int:
        """Takes the next bytes; returns how many they are."""


class Sink(Writer, Protocol):
    """The receiver of a download."""

    @property
    def start(self) -> int | None:
        """The offset from which on the output is wanted, by ranges if possible. None: all of it, in one stream."""

    def begin(self, version: Version, offset: int) -> None:
        """Says which file comes and where its bytes begin. A provider that does not call it begins at offset 0."""


NO_RESPONSE = msgspec.Raw(b"null")
"""The response of a row without one."""


class OutputRow(msgspec.Struct, frozen=True, gc=False):
    """One row of output. A row with neither response nor error means that the provider returned nothing."""

    key: str | None
    """The key that the row came with; None where it has none."""
    response: msgspec.Raw = NO_RESPONSE
    """The response as JSON, byte for byte as it came."""
    error: ResultError | None = None
    """The provider's error for this request."""


class Provider(Protocol):
    """One provider of batch jobs.

    Every method is synchronous, bounded in time and safe to call from many threads at once. Every method that calls the
    provider may raise `Denied`, `Throttled` or `Unavailable`, and `Refused` where the provider refuses the call.
    """

    def upload(self, display_name: str, data: IO[bytes]) -> Uploaded:
        """Uploads request lines.

        - `display_name`: the display name of the job that will use them.
        - `data`: a seekable file of JSON lines, as large as a job may be.
        """

    def ready(self, input: str) -> bool:  # noqa: A002 - the field's word
        """Returns whether an uploaded input can be used yet.

        Raises `Missing` if it is gone, and `Refused` if it can never be used.
        """

    def pin(self, display_name: str, sources: Sequence[Part]) -> Sequence[str]:
        """Returns URIs under which a job reads a user's own requests exactly as they were accepted at submit.

        - `display_name`: the display name of the job that will use them.
        - `sources`: the places as they were found at submit, with their generations.

        Raises `Refused` where a source is gone or is not what it was.
        """

    def confirm(self, sources: Sequence[Part], until: float) -> None:
        """Checks that a job has read its sources as they were accepted at submit.

        - `until`: when the job had surely ended, in Unix seconds. Later changes do no harm.

        Raises `Refused` where a source is gone or was changed before that, so that the job may have read another one.
        """

    def has_webhooks(self, kind: Kind) -> bool:
        """Returns whether jobs of this kind can be created with a webhook."""

    def authorize(self) -> None:
        """Fetches what the next call needs as proof of its identity, so that `create` need not wait for it."""

    def create(self, job: NewJob, deadline: Deadline) -> ProviderJob:
        """Creates a job: one request on the wire, never repeated, and none of its bytes after the deadline."""

    def get(self, name: str) -> ProviderJob:
        """Returns the job as it is now. Raises `Missing` only if the provider says that it does not know the job."""

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        """Returns a page of all jobs of the account, foreign ones included, and the next page's token.

        - `page_token`: the token that came with the page before; None: the first page.
        - `display_name`: the job that the caller searches for. A provider that can search leaves out all others.

        An unreadable job is skipped, unless it has that display name: then this raises `Unavailable`.
        """

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        """Returns a page of all uploaded inputs of the account, foreign ones included, and the next page's token."""

    def unreadable_items(self) -> int:
        """Returns how many items of list pages this process has skipped as unreadable, each counted once."""

    def cancel(self, name: str) -> None:
        """Asks the provider to cancel a job. A job that has ended or is gone is no error."""

    def delete(self, name: str) -> None:
        """Deletes an ended job and its output, but nothing at a user's destination. A job that is gone is no error.

        Raises `Unavailable` for a job that cannot be deleted yet.
        """

    def delete_input(self, input: str) -> None:  # noqa: A002 - the field's word
        """Deletes an uploaded input. One that is gone is no error."""

    def clear(self, display_name: str) -> None:
        """Deletes everything else at the provider under a job's display name, after all jobs of that name are gone."""

    def parts(self, output: Output) -> list[Part] | None:
        """Returns the files of an output that can be read by byte ranges, always in the same order.

        None means that the output must be downloaded. Raises `Missing` if there is no output, and `IncompleteOutput` if
        it shows that some is missing.
        """

    def read(self, part: Part, start: int, end: int) -> bytes:
        """Returns the whole lines that begin within the bytes [start, end) of a part of output or of a source.

        Raises `Missing` if the part is gone or has another generation now.
        """

    def resumable(self, output: Output) -> bool:
        """Returns whether every download of an output has the same bytes.

        If not, one that was interrupted begins anew, and nothing of it is used before it is whole.
        """

    def download(self, output: Output, sink: Sink) -> None:
        """Writes a job's output into `sink` in its order, one JSON row per line.

        Raises `IncompleteOutput` if the replies contradict each other.
        """

    def rows(self, block: bytes) -> list[OutputRow]:
        """Decodes many whole lines of output at once. Raises `ValueError` if one of them is no row."""

    def row(self, line: bytes) -> OutputRow:
        """Decodes one line of output. Raises `ValueError` if it is no row."""
