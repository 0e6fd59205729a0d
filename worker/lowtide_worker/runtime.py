"""The tools of the stages, built once per process and only when first needed (so after a fork)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from typing import assert_never

import redis

from lowtide.addresses import CeleryTarget, StreamTarget, WebhookTarget, parse_handler
from lowtide.backoff import Backoff
from lowtide.extras import install
from lowtide.models import ResultError
from lowtide.pricing import price_table
from lowtide.protocol import JobRecord, Queue, display_name
from lowtide.spool import Spool
from lowtide.states import ProviderName
from lowtide.store import BatchEvents, DeliveryClient, Installation, Requests, Singles, Store, connect, require_server
from lowtide_worker.handlers import Handler
from lowtide_worker.handlers.celery import CeleryTaskHandler
from lowtide_worker.handlers.stream import RedisStreamHandler
from lowtide_worker.handlers.webhook import SignedWebhookHandler
from lowtide_worker.metrics import Measurements, measure_calls
from lowtide_worker.providers import Denied, JobLookup, Provider
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import (
    Admission,
    BundledBatch,
    Bundles,
    Clock,
    DeletedBatches,
    Deliveries,
    Hooks,
    Leases,
    Ledger,
    Oddities,
)

_BUNDLES_KEPT = 32
"""Bundles whose batches a process remembers: about 100 bytes a batch."""
_VERTEX_PACKAGES = ("google.api_core", "google.cloud.bigquery", "google.cloud.storage")
_VERTEX_EXTRA = f"Vertex AI needs extras on the workers' hosts: {install('worker', 'vertex')}"


class Runtime:
    """Settings, and the connections that follow from them. Raises `InvalidPrices` for a price table that is no good."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.prices = price_table(settings.prices)
        self.poll_backoff = Backoff(
            first=settings.poll_first_seconds, cap=settings.poll_max_seconds, factor=settings.poll_factor
        )
        self.retry_backoff = Backoff(first=settings.retry_first_seconds, cap=settings.retry_max_seconds)
        self.quota_backoff = Backoff(first=settings.quota_first_seconds, cap=settings.quota_max_seconds)
        self.delivery_backoff = settings.delivery_backoff
        self.wake: Callable[[Queue], object] = lambda _: None
        """Sends what is due on a queue's clock now, in the middle of a stage. Set where Celery's app is at hand."""
        self._providers: dict[str, Provider] = {}
        self._job_lookups: dict[str, JobLookup] = {}
        self._handlers: dict[str, Handler] = {}

    @cached_property
    def redis(self) -> redis.Redis:
        """The store's client."""
        return connect(self.settings)

    @cached_property
    def clock(self) -> Clock:
        """The times at which entities are due."""
        return Clock(self.redis, self.settings)

    @cached_property
    def leases(self) -> Leases:
        """The leases of all that this process works on."""
        return Leases(self.clock.keep, lease=self.settings.lease_seconds, limit=self.settings.stage_limit_seconds)

    @cached_property
    def admission(self) -> Admission:
        """The slots of jobs at the provider."""
        return Admission(self.redis, self.settings)

    @cached_property
    def hooks(self) -> Hooks:
        """The record of whether the provider's events come."""
        return Hooks(self.redis)

    @cached_property
    def bundles(self) -> Bundles:
        """The record of which batches share jobs."""
        return Bundles(self.redis, self.settings)

    @cached_property
    def singles(self) -> Singles:
        """The record of requests that were added by themselves."""
        return Singles(self.redis, self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """The record of which request has its result."""
        return Ledger(self.redis, self.settings)

    @cached_property
    def deleted(self) -> DeletedBatches:
        """The record of which batches were deleted."""
        return DeletedBatches(self.redis)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The record of which handler has which segments in hand."""
        return Deliveries(self.redis, self.settings)

    @cached_property
    def batch_events(self) -> BatchEvents:
        """The record of batch events that are not delivered yet."""
        return BatchEvents(self.redis, self.delivery_backoff)

    @cached_property
    def store(self) -> Store:
        """The store as producers see it."""
        return Store(self.settings)

    @cached_property
    def delivery_client(self) -> DeliveryClient:
        """The handlers' side of deliveries, for handlers without this package."""
        return DeliveryClient(self.settings)

    @cached_property
    def oddities(self) -> Oddities:
        """The handling of odd things."""
        return Oddities(self.redis)

    @cached_property
    def measurements(self) -> Measurements:
        """The measurements of this process."""
        return Measurements(lambda: self.redis)

    @cached_property
    def spool(self) -> Spool:
        """The place of payloads."""
        return Spool(self.settings.spool_url)

    @cached_property
    def requests(self) -> Requests:
        """The requests of batches."""
        return self.store.requests(self.spool)

    @cached_property
    def batches_of(self) -> Callable[[str, int, int], tuple[BundledBatch, ...]]:
        """The batches of a bundle, by its id and the numbers of its batches and requests.

        They do not change once it is closed, unless Redis goes back in time and other batches are added.
        """

        @lru_cache(maxsize=_BUNDLES_KEPT)
        def batches(bundle_id: str, bundled: int, total: int) -> tuple[BundledBatch, ...]:
            del bundled
            return self.bundles.batches(bundle_id, total)

        return batches

    @cached_property
    def installation(self) -> Installation:
        """The identity that Redis and spool share."""
        return Installation(self.settings, self.redis, self.spool)

    def display_name(self, job: JobRecord) -> str:
        """The provider's display name of a job: the one it was given, else the one to give it."""
        return job.display_name or display_name(self.installation.id, job.id)

    def poll_pause(self, polls: int, *, silent: bool | None) -> float:
        """Seconds until the next poll of a job, after so many.

        - `silent`: what `Hooks.silent` returns, for a job with a webhook; None for any other. The pause is long while
          events come.
        """
        return self.settings.poll_with_webhook_seconds if silent is False else self.poll_backoff.seconds(polls)

    def provider(self, name: str) -> Provider:
        """The provider of this name; its client is built at first use and then shared by all threads."""
        if name not in self._providers:
            provider = _provider_class(name)(self.settings)
            self._providers[name] = measure_calls(provider, name, self.measurements)
        return self._providers[name]

    def job_lookup(self, name: str) -> JobLookup:
        """The lookup of jobs at the provider of this name, shared by all threads of this process."""
        if name not in self._job_lookups:
            self._job_lookups[name] = JobLookup(self.provider(name))
        return self._job_lookups[name]

    def providers(self) -> list[str]:
        """The providers that this worker can serve, and the one that is the default."""
        return [name for name in ProviderName if not self.missing(name) or name == self.settings.provider]

    def missing(self, name: ProviderName) -> str:
        """The reason why this worker cannot serve a provider, with the remedy; "" if it can."""
        settings = self.settings
        match name:
            case ProviderName.GEMINI:
                return "" if settings.google_api_key else "set GEMINI_API_KEY"
            case ProviderName.VERTEX:
                needed = {
                    "GOOGLE_CLOUD_PROJECT": settings.google_cloud_project,
                    "LOWTIDE_VERTEX_STORAGE": settings.vertex_storage,
                }
                unset = [variable for variable, value in needed.items() if not value]
                if unset:
                    return f"set {' and '.join(unset)}"
                return "" if all(map(_is_installed, _VERTEX_PACKAGES)) else _VERTEX_EXTRA
            case never:
                assert_never(never)

    def check_surroundings(self) -> None:
        """Raises a `LowtideError` where a worker must not take work; what redis-py raises passes through."""
        require_server(self.redis)
        self.installation.check()

    def import_provider(self) -> None:
        """Imports the configured provider's SDK, which takes a second, without building its client yet."""
        with suppress(Denied):  # the log says what is missing, when it is set up
            _provider_class(self.settings.provider)
        # The SDK brings a hundred thousand objects that stay; without this every collection walks them all.
        gc.collect()
        gc.freeze()

    def handler(self, spec: str) -> Handler:
        """The handler that a batch names, as in its `on_result`. Raises `InvalidBatch` where it names none."""
        if spec not in self._handlers:
            self._handlers[spec] = self._build_handler(spec)
        return self._handlers[spec]

    def _build_handler(self, spec: str) -> Handler:
        match parse_handler(spec):
            case CeleryTarget() as task:
                return CeleryTaskHandler(self.settings, task, self.redis)
            case WebhookTarget() as webhook:
                return SignedWebhookHandler(self.settings, webhook, self.spool, lambda: self.installation.id)
            case StreamTarget() as stream:
                return RedisStreamHandler(self.settings, stream, self.spool, self.redis)
            case never:
                assert_never(never)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is made unusable
        return False


def _provider_class(name: str) -> Callable[[WorkerSettings], Provider]:
    # Deferred: Flower and the tests' tools do without Google's SDK, and few workers need both.
    match ProviderName(name):
        case ProviderName.GEMINI:
            from lowtide_worker.providers.gemini import GeminiProvider

            return GeminiProvider
        case ProviderName.VERTEX:
            if not all(map(_is_installed, _VERTEX_PACKAGES)):
                raise Denied(ResultError(reason="NOT_INSTALLED", message=_VERTEX_EXTRA))
            from lowtide_worker.providers.vertex.provider import VertexProvider

            return VertexProvider
        case never:
            assert_never(never)


@cache
def runtime() -> Runtime:
    """The one of this process."""
    return Runtime(WorkerSettings())
