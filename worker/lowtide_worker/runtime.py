"""What the stages work with, built once per process and only when first needed (so after a fork)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import assert_never

import redis

from lowtide.addresses import CeleryHandler, StreamHandler, WebhookHandler, parse_handler
from lowtide.backoff import Backoff
from lowtide.protocol import Queue, display_name, display_name_without_installation
from lowtide.spool import Spool
from lowtide.states import ProviderName
from lowtide.store import Installation, connect, require_server
from lowtide_worker.handlers import Deliveries, Handler
from lowtide_worker.handlers.celery import CeleryTaskHandler
from lowtide_worker.handlers.stream import RedisStreamHandler
from lowtide_worker.handlers.webhook import SignedWebhookHandler
from lowtide_worker.providers import JobLookup, Provider
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import Admission, Clock, Leases, Ledger, Oddities


class Runtime:
    """Settings, and the connections that follow from them."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.poll_backoff = Backoff(
            first=settings.poll_first_seconds, cap=settings.poll_max_seconds, factor=settings.poll_factor
        )
        self.retry_backoff = Backoff(first=settings.retry_first_seconds, cap=settings.retry_max_seconds)
        self.quota_backoff = Backoff(first=settings.quota_first_seconds, cap=settings.quota_max_seconds)
        self.delivery_backoff = settings.delivery_backoff
        self.wake: Callable[[Queue], object] = lambda _: None
        """Has what is due on a queue's clock sent now, in the middle of a stage. Who has Celery's app sets it."""
        self._providers: dict[str, Provider] = {}
        self._job_lookups: dict[str, JobLookup] = {}
        self._handlers: dict[str, Handler] = {}

    @cached_property
    def redis(self) -> redis.Redis:
        """The store's client."""
        return connect(self.settings)

    @cached_property
    def clock(self) -> Clock:
        """What is due when."""
        return Clock(self.redis, self.settings)

    @cached_property
    def leases(self) -> Leases:
        """The leases of all that this process works on."""
        return Leases(self.clock.keep, lease=self.settings.lease_seconds, limit=self.settings.stage_limit_seconds)

    @cached_property
    def admission(self) -> Admission:
        """How many jobs may live at the provider."""
        return Admission(self.redis, self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """Which request has its result."""
        return Ledger(self.redis, self.settings)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The problems of deliveries."""
        return Deliveries(self.redis)

    @cached_property
    def oddities(self) -> Oddities:
        """The things that are not as they should be."""
        return Oddities(self.redis)

    @cached_property
    def spool(self) -> Spool:
        """Where payloads lie."""
        return Spool(self.settings.spool_url)

    @cached_property
    def installation(self) -> Installation:
        """The identity that Redis and spool share."""
        return Installation(self.settings, self.redis, self.spool)

    def display_name(self, job: Mapping[str, str]) -> str:
        """The provider's display name of a job, by its fields: the one it was given, else the one to give it."""
        if given := job.get("display_name"):
            return given
        if job.get("name") or job.get("input") or job.get("intent"):
            return display_name_without_installation(job["id"])
        return display_name(self.installation.id, job["id"])

    def provider(self, name: str) -> Provider:
        """The provider of this name; its client is built at first use and then shared by all threads."""
        if name not in self._providers:
            self._providers[name] = _provider_class(name)(self.settings)
        return self._providers[name]

    def job_lookup(self, name: str) -> JobLookup:
        """The lookup of jobs at the provider of this name, shared by all threads of this process."""
        if name not in self._job_lookups:
            self._job_lookups[name] = JobLookup(self.provider(name))
        return self._job_lookups[name]

    def providers(self) -> list[str]:
        """The providers that the settings hold credentials for."""
        settings = self.settings
        usable = {
            ProviderName.GEMINI: settings.google_api_key is not None,
            ProviderName.VERTEX: settings.google_cloud_project is not None and settings.vertex_storage is not None,
        }
        return [name for name in ProviderName if usable[name] or name == settings.provider]

    def check_surroundings(self) -> None:
        """Raises a `LowtideError` where a worker must not take work; what redis-py raises passes through."""
        require_server(self.redis)
        self.installation.check()

    def import_provider(self) -> None:
        """Imports the configured provider's SDK, which takes a second, without building its client yet."""
        _provider_class(self.settings.provider)
        # The SDK brings a hundred thousand objects that stay; without this every collection walks them all.
        gc.collect()
        gc.freeze()

    def handler(self, spec: str) -> Handler:
        """The handler that a batch's `on_result` names. Raises `InvalidBatch` for what is none."""
        if spec not in self._handlers:
            self._handlers[spec] = self._build_handler(spec)
        return self._handlers[spec]

    def _build_handler(self, spec: str) -> Handler:
        match parse_handler(spec):
            case CeleryHandler() as task:
                return CeleryTaskHandler(self.settings, task, self.redis)
            case WebhookHandler() as webhook:
                return SignedWebhookHandler(self.settings, webhook, self.spool)
            case StreamHandler() as stream:
                return RedisStreamHandler(self.settings, stream, self.spool, self.redis)
            case never:
                assert_never(never)


def _provider_class(name: str) -> Callable[[WorkerSettings], Provider]:
    # Deferred: Flower and the tests' tools do without Google's SDK, and few workers need both.
    match ProviderName(name):
        case ProviderName.GEMINI:
            from lowtide_worker.providers.gemini import GeminiProvider

            return GeminiProvider
        case ProviderName.VERTEX:
            from lowtide_worker.providers.vertex.provider import VertexProvider

            return VertexProvider
        case never:
            assert_never(never)


@cache
def runtime() -> Runtime:
    """The one of this process."""
    return Runtime(WorkerSettings())
