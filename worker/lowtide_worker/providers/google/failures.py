"""The table from HTTP statuses, and from what Google's SDK raises, to the kinds of `ProviderError`.

| HTTP status | kind |
|---|---|
| 401, and 400 for an invalid API key | `Denied` |
| 429 | `Throttled` |
| 404, and 403 where the text says that the file "may not exist" | `Missing` |
| any other 4xx but 408 and 409 | `Refused` |
| 408, 409, 5xx, and every error of the network | `Unavailable` |
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.genai import errors

from lowtide.models import ResultError
from lowtide_worker.providers.protocol import Denied, Missing, ProviderError, Refused, Throttled, Unavailable


def _http_client_errors() -> Iterator[type[Exception]]:
    """The base errors of the HTTP clients that the SDK may use; it does not wrap them."""
    for module in ("httpx2", "httpx"):
        try:
            yield importlib.import_module(module).HTTPError
        except ImportError:
            continue


_NETWORK: tuple[type[Exception], ...] = (OSError, ValueError, KeyError, GoogleAuthError, *_http_client_errors())
"""Errors after which the outcome of a call is unknown. `ValueError` and `KeyError` mean a malformed reply."""


@contextmanager
def failures() -> Iterator[None]:
    """Turns what the SDK raises within the `with` block into a `ProviderError`."""
    try:
        yield
    except errors.APIError as error:
        code = int(error.code or 0)
        found = ResultError(reason=error.status or f"HTTP_{code}", message=error.message or str(code), code=code)
        raise failure(code, found, str(error.details)) from error
    except (DefaultCredentialsError, RefreshError) as error:
        said = error.args[0] if error.args else type(error).__name__
        advice = "run `gcloud auth application-default login`, or set LOWTIDE_VERTEX_CREDENTIALS"
        raise Denied(ResultError(reason="NO_CREDENTIALS", message=f"{advice} ({said})")) from error
    except _NETWORK as error:
        found = ResultError(reason="UNAVAILABLE", message=_described(error))
        raise Unavailable(found) from error


def _described(error: Exception) -> str:
    """A network error as text. For an error about what was to be sent, which may be a secret, only the error's name."""
    name = type(error).__name__
    return name if isinstance(error, UnicodeError) or name == "LocalProtocolError" else f"{name}: {error}"


def failure(code: int, error: ResultError, details: str = "") -> ProviderError:
    """Returns the kind of failure that an HTTP status means; see the module's table.

    - `code`: the HTTP status.
    - `error`: the provider's reason and message, which the failure carries.
    - `details`: the details of the reply as text.
    """
    if code == 401 or (code == 400 and "API_KEY_INVALID" in details):
        return Denied(error, http_status=code)
    if code == 429:
        return Throttled(error, http_status=code)
    # A file that is gone, or that another project owns, is answered with 403 "or it may not exist".
    if code == 404 or (code == 403 and "may not exist" in error.message):
        return Missing(error, http_status=code)
    if 400 <= code < 500 and code not in (408, 409):
        return Refused(error, http_status=code)
    return Unavailable(error, http_status=code)
