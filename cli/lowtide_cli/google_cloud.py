"""Cloud Storage and BigQuery on this machine, with the places in them that batches on Vertex AI use.

The servers are the emulator's stand-ins; they need the extra `vertex-emulator`.
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
from lowtide_cli.errors import CommandError
from lowtide_cli.processes import past_proxies

if TYPE_CHECKING:
    from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer

Place = TypeVar("Place")


@dataclass(frozen=True, kw_only=True)
class Places:
    """What there is to be, in the words of the settings."""

    project: str
    storage: str
    """`LOWTIDE_VERTEX_STORAGE`."""
    dataset: str
    """`LOWTIDE_VERTEX_DATASET`."""
    locations: Sequence[str]
    """`LOWTIDE_VERTEX_LOCATIONS`."""

    def buckets(self) -> set[str]:
        """The buckets that they lie in."""
        return {place.bucket for place in _read(parse_objects, (self.storage, *self.locations))}

    def datasets(self) -> set[str]:
        """The datasets that they lie in, as `project.dataset`."""
        return {f"{place.project}.{place.dataset}" for place in _read(parse_table, (self.dataset, *self.locations))}


@dataclass
class GoogleCloud:
    """Both servers. Once they run, the clients of this process find them too."""

    folder: Path
    places: Places
    storage_port: int = 0
    """0 chooses a free one."""
    bigquery_port: int = 0
    _storage: CloudStorageServer | None = None
    _bigquery: BigQueryServer | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Starts both and makes what is not there of the places. Raises `CommandError`."""
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
            # Objects are kept on disk, so that it may be there from the last time.
            if storage.lookup_bucket(bucket) is None:
                storage.create_bucket(bucket)
        for dataset in self.places.datasets():
            bigquery.create_dataset(dataset, exists_ok=True)

    def stop(self) -> None:
        """Ends both; those that do not run are no error."""
        self._running.close()

    @property
    def storage_url(self) -> str:
        """Where Cloud Storage listens."""
        return self._storage.url if self._storage else ""

    @property
    def bigquery_url(self) -> str:
        """Where BigQuery listens."""
        return self._bigquery.url if self._bigquery else ""

    @property
    def environment(self) -> dict[str, str]:
        """What producers, workers and emulator must have in their environment."""
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
        """Those of the running servers that are there no more, and their logs."""
        for name, server in (("Cloud Storage", self._storage), ("BigQuery", self._bigquery)):
            if server is not None and _refuses(server.url):
                yield name, server.log


def _read(parse: Callable[[str], Place], uris: Iterable[str]) -> Iterator[Place]:
    """Those of the places that are of one kind."""
    for uri in uris:
        try:
            place = parse(uri)
        except ValueError:
            continue
        yield place


def _refuses(url: str) -> bool:
    """Whether nobody listens there; a server that is merely busy still does."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        with suppress(TimeoutError):
            return probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) == errno.ECONNREFUSED
    return False
