"""What Google's two batch APIs have in common: raw calls, kinds of failure, states and statuses on the wire.

Calls go through google-genai for its endpoints and authentication; replies are read as raw JSON, because the SDK's
typed `BatchJob` drops error and stats, and fails on rows whose error has details. Each call is bounded in wall time,
and no redirect is followed: the API key and the prompts would go along to wherever it leads.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

import msgspec
from google import genai
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.genai import errors, types

from lowtide.models import ResultError
from lowtide.protocol import DISPLAY_PREFIX
from lowtide.states import JobState
from lowtide_worker.bounded import BoundedBackend, Exchange, within
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers.protocol import Denied, Missing, OutputRow, ProviderError, Refused, Throttled, Unavailable
from lowtide_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_MOST_ODD = 1000
_RETRIES = types.HttpRetryOptions(attempts=3, initial_delay=0.5, max_delay=4.0)
ONCE = types.HttpRetryOptions(attempts=1)
"""For a create: one request on the wire, whatever happens."""
_MOST_PAGE_BYTES = 64 << 20
"""A page of a list: a hundred jobs or files without their rows."""
_MOST_REPLY_BYTES = 2 << 30
"""Any other reply. An ended inline job carries its output, which the API itself fails to give from about 1 GB on."""


class GoogleClient(genai.Client):
    """google-genai's client, over connections that are bounded and follow no redirect.

    Uploads and downloads, of any size, have `provider_timeout_seconds` for each step; all else has them as a whole.
    """

    def __init__(self, settings: WorkerSettings, *, base_url: str | None, **options: Any) -> None:
        self._seconds = settings.provider_timeout_seconds
        self._slowest = settings.provider_slowest_bytes_per_second
        http = types.HttpOptions(
            base_url=base_url,
            timeout=int(self._seconds * 1000),
            # What is packed could be a thousand times as long as the bytes that are counted.
            headers={"Accept-Encoding": "identity"},
            client_args={"follow_redirects": False, "event_hooks": {"response": [_refuse_redirect]}},
        )
        super().__init__(http_options=http, **options)
        _bound_connections(self)

    def bounded(
        self, most_bytes: int = _MOST_REPLY_BYTES, deadline: Deadline | None = None
    ) -> AbstractContextManager[None]:
        """Bounds the call that is made meanwhile; `deadline` is by default one that begins now."""
        deadline = deadline or Deadline(self._seconds)
        return within(Exchange(deadline, slowest=self._slowest, most_bytes=most_bytes))


def _bound_connections(client: genai.Client) -> None:
    """Puts our network in the place of the HTTP client's, which can be given none.

    All else of it stays: proxies and certificates from the environment.
    """
    http: Any = client._api_client._httpx_client  # noqa: SLF001
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        if transport is not None:
            pool = transport._pool  # noqa: SLF001
            pool._network_backend = BoundedBackend(pool._network_backend)  # noqa: SLF001


def _refuse_redirect(response: Any) -> None:
    if 300 <= response.status_code < 400:
        message = f"the provider answered {response.status_code}; redirects are not followed"
        raise Unavailable(ResultError(reason="REDIRECTED", message=message), http_status=response.status_code)


def call(
    client: GoogleClient,
    method: str,
    path: str,
    body: dict[str, object] | None = None,
    retry: types.HttpRetryOptions = _RETRIES,
    deadline: Deadline | None = None,
) -> Any:
    """One call of the REST API; returns the decoded reply. Raises a `ProviderError`.

    It ends, retries included, by `deadline`, by default `provider_timeout_seconds` from now.
    """
    # Only lists have a query.
    most_bytes = _MOST_PAGE_BYTES if "?" in path else _MOST_REPLY_BYTES
    with failures(), client.bounded(most_bytes, deadline):
        # The typed methods of the SDK lose what we need (see the module's docstring); this is what they call.
        reply = client._api_client.request(  # noqa: SLF001
            method, path, body or {}, types.HttpOptions(retry_options=retry)
        )
        return json.loads(reply.body or "{}")


def cancel(client: GoogleClient, name: str) -> None:
    """POST :cancel. A job that has ended, or is gone meanwhile, is no error."""
    try:
        call(client, "post", f"{name}:cancel")
    except Refused as refusal:
        if refusal.http_status not in (400, 404):
            raise


def _network_errors() -> Iterator[type[Exception]]:
    """The errors of the HTTP clients the SDK may have chosen; it does not wrap them."""
    for module in ("httpx2", "httpx"):
        try:
            yield importlib.import_module(module).HTTPError
        except ImportError:
            continue


_NETWORK: tuple[type[Exception], ...] = (
    OSError, ValueError, KeyError, GoogleAuthError, *_network_errors(),
)  # fmt: skip


@contextmanager
def failures() -> Iterator[None]:
    """Sorts what the SDK raises into ours."""
    try:
        yield
    except errors.APIError as error:
        code = int(error.code or 0)
        found = ResultError(reason=error.status or f"HTTP_{code}", message=error.message or str(code), code=code)
        raise failure(code, found, str(error.details)) from error
    except (DefaultCredentialsError, RefreshError) as error:
        raise Denied(ResultError(reason="NO_CREDENTIALS", message=f"{type(error).__name__}: {error}")) from error
    except _NETWORK as error:
        found = ResultError(reason="UNAVAILABLE", message=_said(error))
        raise Unavailable(found) from error


def _said(error: Exception) -> str:
    """An error of the network in words; of one about what was to be sent, which may be a secret, its name alone."""
    name = type(error).__name__
    return name if isinstance(error, UnicodeError) or name == "LocalProtocolError" else f"{name}: {error}"


def failure(code: int, error: ResultError, details: str = "") -> ProviderError:
    """The kind of failure that an HTTP status is; 408, 409, 5xx and everything from the network is uncertain."""
    if code == 401 or (code == 400 and "API_KEY_INVALID" in details):
        return Denied(error, http_status=code)
    if code == 429:
        return Throttled(error, http_status=code)
    # A file that is gone, or of another project, is answered with 403 "or it may not exist".
    if code == 404 or (code == 403 and "may not exist" in error.message):
        return Missing(error, http_status=code)
    if 400 <= code < 500 and code not in (408, 409):
        return Refused(error, http_status=code)
    return Unavailable(error, http_status=code)


# Our own words: the provider may come to use them for something else.
_OURS = frozenset({JobState.PLANNED, JobState.CREATING, JobState.UNKNOWN, JobState.LOST})
_STATES = {state.value: state for state in JobState if state not in _OURS}


def job_state(raw: str) -> JobState:
    """A state on the wire, `JOB_STATE_*` or `BATCH_STATE_*`; one we do not know is UNKNOWN."""
    word = raw.lower().removeprefix("batch_state_").removeprefix("job_state_")
    return _STATES.get(word, JobState.UNKNOWN)


def status_error(value: Mapping[str, Any]) -> ResultError:
    """A `google.rpc.Status` as an error of ours."""
    code = value.get("code")
    number = int(str(code)) if re.fullmatch(r"-?[0-9]{1,9}", str(code)) else None
    return ResultError(
        reason=str(value.get("status") or _GRPC.get(number or -1, "ERROR")),
        message=str(value.get("message") or "the provider gave no message"),
        code=number,
    )


_GRPC = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION",
    10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}  # fmt: skip


GRPC_CODES = {name: code for code, name in _GRPC.items()}
"""The canonical codes by their names."""


def as_object(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: the provider's input is untrusted."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str | None:
    """The value if it is a string, else None."""
    return value if isinstance(value, str) else None


def as_count(value: object) -> int:
    """A count, which JSON of Google's writes as a string; 0 for what is none."""
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else 0


def page_of(reply: object) -> Mapping[str, Any]:
    """A page of a list. Raises `ValueError` for what is none: nobody shall read it as an empty one."""
    if not isinstance(reply, Mapping):
        raise ValueError(f"the provider answered with a page that is none: {reply!r:.100}")  # noqa: TRY004
    return reply


Item = TypeVar("Item")


class PageReader:
    """Reads the items of a list's pages one by one: an odd one hides no other."""

    def __init__(self) -> None:
        self.odd: set[str] = set()
        """Items that were passed over, as text, each once and said once in the log."""

    def read(self, items: object, read: Callable[[object], Item], *, needed: str | None = None) -> list[Item]:
        """Those items of a page that can be read.

        Raises `ValueError` where there is no page, or where it is the job of the display name `needed` that cannot be
        read: it is there, and must not be taken for missing.
        """
        if not isinstance(items, list):
            raise ValueError(f"the provider answered with a page that is none: {items!r:.100}")  # noqa: TRY004
        found: list[Item] = []
        for item in items:
            try:
                found.append(read(item))
            except Exception as error:
                name = _display_name(item)
                if needed is not None and name == needed:
                    raise ValueError(f"the job {needed} cannot be read: {error}") from error
                self._pass_over(item, name, error)
        return found

    def _pass_over(self, item: object, name: str | None, error: Exception) -> None:
        text = f"{item!r:.300}"
        if text in self.odd or len(self.odd) >= _MOST_ODD:
            return
        self.odd.add(text)
        level = logging.ERROR if (name or "").startswith(DISPLAY_PREFIX) else logging.WARNING
        log.log(level, "passed over in the provider's list: %s: %s", name, error)


def _display_name(item: object) -> str | None:
    job = as_object(item)
    inner = as_object(job.get("metadata"))
    return as_text(either(inner, "displayName", "display_name") or either(job, "displayName", "display_name"))


def either(value: Mapping[str, Any], camel: str, snake: str) -> Any:
    """A field in either letter case; None where it is missing."""
    return value[camel] if camel in value else value.get(snake)


Line = TypeVar("Line")


class RowReader(Generic[Line]):
    """Reads lines of output in a provider's own shape. Raises `ValueError` for what is no row."""

    def __init__(self, shape: type[Line], row: Callable[[Line], OutputRow]) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._row = row

    def many(self, block: bytes) -> list[OutputRow]:
        """All of them in one call."""
        try:
            return [self._row(line) for line in self._decoder.decode_lines(block)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def one(self, line: bytes) -> OutputRow:
        """A single one."""
        try:
            return self._row(self._decoder.decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error
