"""Makes Google Cloud's own clients from the settings. Imported only where Vertex AI is used.

The clients' own variables name an emulator: STORAGE_EMULATOR_HOST and BIGQUERY_EMULATOR_HOST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from lowtide.errors import InvalidBatch, SourceError
from lowtide.extras import install
from lowtide.settings import Settings

if TYPE_CHECKING:
    from google.cloud.bigquery import Client as BigQueryClient
    from google.cloud.storage import Client as StorageClient

C = TypeVar("C")
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
ANONYMOUS = "anonymous"
_SECONDS = 60


def credentials(settings: Settings) -> Any:
    """Returns the settings' credentials; None: the clients use Application Default Credentials.

    Raises `InvalidBatch` for a file that is not the key of a service account.
    """
    chosen = settings.vertex_credentials
    if chosen is None:
        return None
    if chosen == ANONYMOUS:
        from google.oauth2.credentials import Credentials

        return Credentials(token=ANONYMOUS)
    from google.oauth2 import service_account

    try:
        return service_account.Credentials.from_service_account_file(chosen, scopes=_SCOPES)
    except OSError as error:
        raise InvalidBatch(f"LOWTIDE_VERTEX_CREDENTIALS: {chosen} cannot be read: {error.strerror}") from error
    except ValueError as error:
        # Not the error's own text, which may quote the key.
        raise InvalidBatch(
            f"LOWTIDE_VERTEX_CREDENTIALS: {chosen} is not the key file of a service account; create one with "
            "`gcloud iam service-accounts keys create`, or unset it to use Application Default Credentials"
        ) from error


def storage_client(settings: Settings) -> StorageClient:
    """Returns a client of Cloud Storage. Raises `SourceError` where it is not installed."""
    try:
        from google.cloud.storage import Client
    except ImportError as error:
        raise missing_extra() from error
    return _without_redirects(Client(project=settings.google_cloud_project, credentials=credentials(settings)))


def bigquery_client(settings: Settings) -> BigQueryClient:
    """Returns a client of BigQuery. Raises `SourceError` where it is not installed, or no project is known."""
    try:
        from google.cloud.bigquery import Client
    except ImportError as error:
        raise missing_extra() from error
    try:
        client = Client(project=settings.google_cloud_project, credentials=credentials(settings))
    except OSError as error:
        raise SourceError("BigQuery needs a project: set GOOGLE_CLOUD_PROJECT") from error
    return _without_redirects(client)


def rest_get(url: str, settings: Settings) -> Any:
    """Asks one of Google's REST APIs (GET); returns the JSON of its answer.

    Raises `SourceError` where Google's clients are not installed, and their errors for any other answer.
    """
    try:
        import google.auth
        from google.api_core.exceptions import from_http_response
        from google.auth.transport.requests import AuthorizedSession
    except ImportError as error:
        raise missing_extra() from error
    chosen = credentials(settings)
    if chosen is None:
        chosen, _ = google.auth.default(scopes=_SCOPES)
    with AuthorizedSession(chosen) as session:
        reply = session.get(url, timeout=_SECONDS, allow_redirects=False)
    if reply.status_code != 200:
        raise from_http_response(reply)
    return reply.json()


def _without_redirects(client: C) -> C:
    """Returns the client, for which a redirect is now an error: its requests must reach no host but Google's."""
    cast("Any", client)._http.max_redirects = 0  # noqa: SLF001 - there is no public way to set it
    return client


def missing_extra() -> SourceError:
    """Returns the error for an installation without Google's clients."""
    return SourceError(f"Vertex AI needs Google's clients: {install('vertex')}")
