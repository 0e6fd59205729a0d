"""The check of the provider: whether it lists its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowtide import InvalidSettings, LowtideError
from lowtide.extras import install
from lowtide.states import ProviderName
from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.extras import installed

if TYPE_CHECKING:
    from lowtide_worker.providers import ProviderError
    from lowtide_worker.settings import WorkerSettings

_PROVIDER_SECONDS = 10.0


def check_provider(*, served: bool) -> list[Finding]:
    """Returns the findings about the provider, and about Vertex AI's storage if it is used.

    - `served`: whether running workers serve the provider, so that batches need no key here.
    """
    if not installed("worker"):
        advice = f"on the workers' hosts, {install('worker')}"
        return [Finding("Provider", Health.WARN, "not checked: the worker is not installed on this host", advice)]
    from lowtide_cli.commands.doctor.vertex import check_vertex
    from lowtide_worker.settings import WorkerSettings

    try:
        known = WorkerSettings()
    except InvalidSettings as error:
        return [Finding("Provider", Health.FAIL, str(error), "correct it here, in .env, and on the workers' hosts")]
    # A worker has time to wait for an answer. A person at a terminal does not.
    timeout = min(known.provider_timeout_seconds, _PROVIDER_SECONDS)
    hurried = known.model_copy(update={"provider_timeout_seconds": timeout})
    return [_jobs(hurried, served=served), *check_vertex(hurried)]


def _jobs(settings: WorkerSettings, *, served: bool) -> Finding:
    from lowtide_worker.providers import ProviderError
    from lowtide_worker.runtime import Runtime

    vertex = settings.provider is ProviderName.VERTEX
    endpoint = settings.google_vertex_base_url if vertex else settings.google_gemini_base_url
    name = f"{settings.provider} at {endpoint or 'Google'}"
    try:
        jobs, more = Runtime(settings).provider(settings.provider).jobs()
    except LowtideError as error:  # an unreadable file of credentials
        return Finding("Provider", Health.FAIL, str(error))
    except ProviderError as error:
        has_key = settings.google_api_key is not None
        if served and not vertex and not has_key:
            seen = f"{name}: not checked, because no API key is set here; running workers serve it"
            advice = "to use `lowtide jobs` and `lowtide hooks` here, set GEMINI_API_KEY here too"
            return Finding("Provider", Health.WARN, seen, advice)
        advice = _advice_on_vertex(error) if vertex else _advice_on_gemini(error, has_key=has_key)
        return Finding("Provider", Health.FAIL, f"{name}: {error}", advice)
    count = f"{len(jobs):,}{' or more' if more else ''} {'job' if len(jobs) == 1 else 'jobs'}"
    return Finding("Provider", Health.OK, f"{name} lists {count}")


def _advice_on_gemini(error: ProviderError, *, has_key: bool) -> str:
    from lowtide_worker.providers import Unavailable

    if isinstance(error, Unavailable) and has_key:
        return "check the network and GOOGLE_GEMINI_BASE_URL"
    return "set GEMINI_API_KEY (or GOOGLE_API_KEY) to a valid key"


def _advice_on_vertex(error: ProviderError) -> str:
    from lowtide_worker.providers import Unavailable

    if error.error.reason == "NOT_INSTALLED":
        return "install it on every host of a worker, or set LOWTIDE_PROVIDER=gemini"
    if error.error.reason == "NOT_CONFIGURED":
        return "see docs/how-to.md, Use Vertex AI"
    if isinstance(error, Unavailable):
        return "check the network and GOOGLE_VERTEX_BASE_URL"
    if error.http_status == 403:
        return "the project needs aiplatform.googleapis.com enabled, and the workers' account Vertex AI User in it"
    return "gcloud auth application-default login, or LOWTIDE_VERTEX_CREDENTIALS; see docs/how-to.md"
