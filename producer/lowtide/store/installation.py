"""The identity of an installation: one Redis database and one spool that belong together.

A short random id is stored in Redis, in a marker file at the spool's root, and in the display name of everything at the
provider. Before a process writes, reads or deletes, it checks that Redis and the spool have the same id. The Redis of
another installation, an emptied Redis, or another spool is an error at once, and never a reason to delete anything.

The first process creates both, in three steps, and may crash after each: it writes the id into Redis together with a
digest of the spool's URL, creates the marker (never over another one), and writes the id alone into Redis.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import cast

import msgspec
import redis

from lowtide.errors import InstallationMismatch, SpoolError
from lowtide.protocol import INSTALLATION_ID, keys, new_installation_id
from lowtide.settings import Settings, without_password
from lowtide.spool import MARKER, Spool
from lowtide.store.durability import durably


class _Marker(msgspec.Struct, frozen=True):
    installation: str


_decode = msgspec.json.Decoder(_Marker).decode


@dataclass(frozen=True)
class Seen:
    """The ids in Redis and in the spool; None where there is none."""

    redis: str | None
    spool: str | None
    place: str = ""
    """Digest of the spool's URL while the creation is unfinished; empty afterwards."""


class Installation:
    """The Redis and the spool of one process, and their common id. Threads may share it."""

    def __init__(self, settings: Settings, client: redis.Redis, spool: Spool) -> None:
        self._redis = client
        self._spool = spool
        self._replicas = settings.replicas_to_wait_for
        self._where = f"Redis at {without_password(settings.redis_url.get_secret_value())}"
        self._there = f"the spool {without_password(spool.url)}"
        self._place = hashlib.sha256(spool.url.encode()).hexdigest()[:16]
        self._id: str | None = None
        self._last_id: str | None = None

    @property
    def id(self) -> str:
        """The id, read at its first use. Raises the errors of `check`."""
        return self._id or self.check()

    def confirm(self) -> None:
        """Compares the id in Redis with the one this process knows, by one read. If they differ, it calls `check`."""
        stored = cast("bytes | None", self._redis.get(keys.INSTALLATION))
        if self._id is None or stored != self._id.encode():
            self.check()

    def check(self) -> str:
        """Returns the id that Redis and the spool share; creates it if neither has one.

        Raises `InstallationMismatch` if they differ, and `SpoolError` or `redis.RedisError` if one is not available. A
        spool that has lost its marker since the last check of this process counts as not available, such as one that
        is no longer mounted.
        """
        seen = self.seen()
        if seen == Seen(None, None):
            self._redis.set(keys.INSTALLATION, f"{new_installation_id()} {self._place}", nx=True)
            seen = self.seen()
        if seen.redis and seen.spool is None and seen.place == self._place:
            self._spool.create(MARKER, _marker(seen.redis))
            seen = self.seen()
        while not _agree(seen) and (again := self.seen()) != seen:
            # Another process was creating it between the two reads.
            seen = again
        if seen.redis is None or not _agree(seen):
            self._id = None
            if seen.spool is None and seen.redis == self._last_id:
                raise SpoolError(self.described(seen))
            raise InstallationMismatch(self.described(seen))
        if seen.place:
            self._write(seen.redis)
        self._id = self._last_id = seen.redis
        return self._id

    def check_redis(self) -> None:
        """Raises `InstallationMismatch` if only the spool has an id: Redis was emptied, or is another one.

        Unlike `check`, it writes nothing.
        """
        seen = self.seen()
        if seen.redis is None and seen.spool is not None:
            raise InstallationMismatch(self.described(seen))

    def seen(self) -> Seen:
        """Reads the ids in Redis and in the spool."""
        stored = cast("bytes | None", self._redis.get(keys.INSTALLATION))
        known, _, place = (stored or b"").decode(errors="replace").partition(" ")
        return Seen(known or None, self._marked(), place)

    def adopt(self, *, over: bool = False) -> str:
        """Copies the id of Redis or the spool to the other if that has none. Returns the id.

        If neither has one, a new id is created.

        - `over`: replaces the id in Redis with that of the spool, even if they differ.

        Raises `InstallationMismatch` for two different ids without `over`.
        """
        seen = self.seen()
        if seen.spool is None and seen.redis is not None:
            self._spool.create(MARKER, _marker(seen.redis))
        elif seen.spool is not None and (over or seen.redis in (None, seen.spool) or seen.place):
            self._write(seen.spool)
        elif seen.spool is not None:
            raise InstallationMismatch(self.described(seen))
        return self.check()

    def _write(self, known: str) -> None:
        # Jobs at the provider will soon carry this id, so Redis must not lose it.
        durably(self._redis, lambda pipe: pipe.set(keys.INSTALLATION, known), replicas=self._replicas)

    def _marked(self) -> str | None:
        # On file systems without hard links, another process may be writing it at this moment.
        for pause in (0.05, 0.2, 0.5, None):
            marker = self._spool.find(MARKER)
            if marker is None:
                return None
            try:
                known = _decode(marker).installation
            except ValueError:  # of the JSON, its structure or its encoding
                known = ""
            if INSTALLATION_ID.fullmatch(known):
                return known
            if pause is not None:
                time.sleep(pause)
        raise InstallationMismatch(f"{self._there}: {MARKER} is not readable; restore it from a backup")

    def described(self, seen: Seen) -> str:
        """Returns how the two ids differ, and what to do."""
        adopt = "`lowtide installation adopt`"
        if seen.redis is None or (seen.place and seen.spool):
            return (
                f"{self._there} is installation {seen.spool}'s, and {self._where} knows none: it was emptied, it is "
                "another one or another database number, or this is a second Lowtide on this spool; correct "
                f"LOWTIDE_REDIS_URL or LOWTIDE_SPOOL_URL, or, if Redis lost its data, see {adopt}"
            )
        if seen.spool is None:
            return (
                f"{self._where} is installation {seen.redis}'s, and {self._there} has no {MARKER}: it is not the "
                "workers' spool, is not mounted, or was emptied; correct LOWTIDE_SPOOL_URL, or, if the spool was "
                f"moved without it, see {adopt}"
            )
        return (
            f"{self._where} is installation {seen.redis}'s, and {self._there} is installation {seen.spool}'s; correct "
            "LOWTIDE_REDIS_URL or LOWTIDE_SPOOL_URL so that producers, workers and handlers have the same of both"
        )


def _agree(seen: Seen) -> bool:
    return seen.redis is not None and seen.redis == seen.spool


def _marker(known: str) -> bytes:
    return msgspec.json.encode(_Marker(known)) + b"\n"
