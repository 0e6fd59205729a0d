"""The HTTP client for Google's batch APIs: google-genai's own, with bounded connections and raw JSON replies.

google-genai brings the endpoints and the authentication. Replies are read as raw JSON, because the SDK's typed
`BatchJob` drops the error and the statistics, and fails on rows whose error has details. Each call is bounded in wall
time. No redirect is followed: the API key and the prompts would go along to the new address.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

from google import genai
from google.genai import types

from lowtide.models import ResultError
from lowtide_worker.bounded import BoundedBackend, Exchange, within
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers.google.failures import failures
from lowtide_worker.providers.protocol import Refused, Unavailable
from lowtide_worker.settings import WorkerSettings

_RETRIES = types.HttpRetryOptions(attempts=3, initial_delay=0.5, max_delay=4.0)
ONCE = types.HttpRetryOptions(attempts=1)
"""Retry options of a create: exactly one request on the wire."""
_MOST_PAGE_BYTES = 64 << 20
"""Size limit of a list page, in bytes. A page has a hundred jobs or files, without their rows."""
_MOST_REPLY_BYTES = 2 << 30
"""Size limit of any other reply, in bytes. A finished inline job carries its output; the API fails to return one from
about 1 GB on."""


class GoogleClient(genai.Client):
    """google-genai's client, over connections that are bounded and follow no redirect.

    For uploads and downloads of files, `provider_timeout_seconds` bounds each step, since they have any size. For all
    other calls it bounds the call as a whole.
    """

    def __init__(self, settings: WorkerSettings, *, base_url: str | None, **options: Any) -> None:
        self._seconds = settings.provider_timeout_seconds
        self._slowest = settings.provider_slowest_bytes_per_second
        http = types.HttpOptions(
            base_url=base_url,
            timeout=int(self._seconds * 1000),
            # A compressed reply could unpack to a thousand times the bytes that the limit counts.
            headers={"Accept-Encoding": "identity"},
            client_args={"follow_redirects": False, "event_hooks": {"response": [_refuse_redirect]}},
        )
        super().__init__(http_options=http, **options)
        _bound_connections(self)

    def bounded(
        self, most_bytes: int = _MOST_REPLY_BYTES, deadline: Deadline | None = None
    ) -> AbstractContextManager[None]:
        """Bounds the call that is made within the `with` block.

        - `most_bytes`: the size limit of the reply.
        - `deadline`: the end of the call; by default `provider_timeout_seconds` from now.
        """
        deadline = deadline or Deadline(self._seconds)
        return within(Exchange(deadline, slowest=self._slowest, most_bytes=most_bytes))


def _bound_connections(client: genai.Client) -> None:
    """Replaces the network layer of the client's connection pools; proxies and certificates stay as they are.

    The SDK and its HTTP client have no option for that.
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
    """Calls the REST API once and returns the decoded JSON of the reply.

    - `method`, `path`: the HTTP method in lower case, and the path below the API's version.
    - `body`: the JSON object to send.
    - `retry`: the SDK's retries for replies that are worth one; `ONCE` for none.
    - `deadline`: the end of the call, retries included; by default `provider_timeout_seconds` from now.

    Raises a `ProviderError`.
    """
    # Only lists have a query.
    most_bytes = _MOST_PAGE_BYTES if "?" in path else _MOST_REPLY_BYTES
    with failures(), client.bounded(most_bytes, deadline):
        # The SDK's typed methods lose what we need (see the module's docstring); this is the method they all call.
        reply = client._api_client.request(  # noqa: SLF001
            method, path, body or {}, types.HttpOptions(retry_options=retry)
        )
        return json.loads(reply.body or "{}")


def cancel(client: GoogleClient, name: str) -> None:
    """Asks for a job to be cancelled (POST `:cancel`). A job that has ended or is gone is no error."""
    try:
        call(client, "post", f"{name}:cancel")
    except Refused as refusal:
        if refusal.http_status not in (400, 404):
            raise
