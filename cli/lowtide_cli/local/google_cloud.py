"""Cloud Storage and BigQuery on this machine, with the buckets and datasets that batches on Vertex AI use.

The servers are the emulator's stand-ins. They need the extra `vertex-emulator`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from lowtide import Settings
from lowtide.addresses import parse_objects, parse_table
from lowtide.cloud import ANONYMOUS, bigquery_client, storage_client
from lowtide_cli.local.processes import past_proxies
from lowtide_cli.terminal import CommandError

if TYPE_CHECKING:
    from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer

Place = TypeVar("Place")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places that must exist, as the settings name them."""

    project: str
    storage: str
    """`LOWTIDE_VERTEX_STORAGE`."""
    dataset: str
    """`LOWTIDE_VERTEX_DATASET`."""
    locations: Sequence[str]
    """`LOWTIDE_VERTEX_LOCATIONS`."""

    def buckets(self) -> set[str]:
        """Returns the buckets of all places."""
        return {place.bucket for place in _read(parse_objects, (self.storage, *self.locations))}

    def datasets(self) -> set[str]:
        """Returns the datasets of all places, as `project.dataset`."""
        return {f"{place.project}.{place.dataset}" for place in _read(parse_table, (self.dataset, *self.locations))}


@dataclass
class GoogleCloud:
    """Both servers. Once they run, the clients of this process use them too."""

    folder: Path
    places: Places
    storage_port: int = 0
    """0 chooses a free one."""
    bigquery_port: int = 0
    _storage: CloudStorageServer | None = None
    _bigquery: BigQueryServer | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Starts both servers and creates missing buckets and datasets. Raises `CommandError`."""
        from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer, ServerError

        try:
            self._storage = CloudStorageServer(self.folder / "storage", port=self.storage_port)
            self._running.enter_context(self._storage)
            self._bigquery = BigQueryServer(self.folder / "bigquery", port=self.bigquery_port)
            self._running.enter_context(self._bigquery)
        except ServerError as error:
            raise CommandError(str(error)) from error
        os.environ.update({**self.environment, **past_proxies()})
        settings = Settings()
        storage, bigquery = storage_client(settings), bigquery_client(settings)
        for bucket in self.places.buckets():
            # Objects are kept on disk, so the bucket may exist from an earlier run.
            if storage.lookup_bucket(bucket) is None:
                storage.create_bucket(bucket)
        for dataset in self.places.datasets():
            bigquery.create_dataset(dataset, exists_ok=True)

    def stop(self) -> None:
        """Stops both servers. It is no error if they do not run."""
        self._running.close()

    @property
    def storage_url(self) -> str:
        """The URL of Cloud Storage, empty before the start."""
        return self._storage.url if self._storage else ""

    @property
    def bigquery_url(self) -> str:
        """The URL of BigQuery, empty before the start."""
        return self._bigquery.url if self._bigquery else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment that producers, workers and the emulator need."""
        return {
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "BIGQUERY_EMULATOR_HOST": self.bigquery_url,
            "GOOGLE_CLOUD_PROJECT": self.places.project,
            "LOWTIDE_VERTEX_CREDENTIALS": ANONYMOUS,
            "LOWTIDE_VERTEX_STORAGE": self.places.storage,
            "LOWTIDE_VERTEX_DATASET": self.places.dataset,
            "LOWTIDE_VERTEX_LOCATIONS": json.dumps(list(self.places.locations)),
            **(past_proxies() if getproxies_environment().keys() - {"no"} else {}),
        }

    def ended(self) -> Iterator[tuple[str, Path]]:
        """Yields the name and the log of each server that was started but no longer runs."""
        for name, server in (("Cloud Storage", self._storage), ("BigQuery", self._bigquery)):
            if server is not None and _refuses(server.url):
                yield name, server.log


def _read(parse: Callable[[str], Place], uris: Iterable[str]) -> Iterator[Place]:
    """Yields the places of one kind, parsed."""
    for uri in uris:
        try:
            place = parse(uri)
        except ValueError:
            continue
        yield place


def _refuses(url: str) -> bool:
    """Returns whether no server listens at a URL. A busy server still listens."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        with suppress(TimeoutError):
            return probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) == errno.ECONNREFUSED
    return False
