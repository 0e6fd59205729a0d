"""The identity of an installation: one Redis database and one spool that belong together.

A short random id stands in Redis and in a marker at the spool's root, and in the display name of everything at the
provider. Whoever writes, reads or deletes looks first whether both are the same: Redis of another installation, an
emptied one, or another spool is an error at once, and never a reason to delete anything.

Both are made by whoever comes first, in three steps of which each may be the last: the id in Redis with the place it
is meant for, the marker (never over another one), and the id alone in Redis.
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
from lowtide.spool import Spool
from lowtide.store.durability import durably

MARKER = "installation.json"
"""Name of the marker in the spool: `{"installation": "<id>"}`."""


class _Marker(msgspec.Struct, frozen=True):
    installation: str


@dataclass(frozen=True)
class Seen:
    """The ids that the two places have; None where a place has none."""

    redis: str | None
    spool: str | None
    place: str = ""
    """Digest of the spool that an unfinished id in Redis is meant for."""


class Installation:
    """Redis and spool of one process, and the id they share. Safe to share between threads."""

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
        """The id, looked up at first use. Raises as `check`."""
        return self._id or self.check()

    def confirm(self) -> None:
        """One look at Redis alone, where this process knows its id already; else as `check`."""
        standing = cast("bytes | None", self._redis.get(keys.INSTALLATION))
        if self._id is None or standing != self._id.encode():
            self.check()

    def check(self) -> str:
        """The id that both places have; makes it where neither has one.

        Raises `InstallationMismatch` where they differ, `SpoolError` and `redis.RedisError` where one does not serve.
        A spool without a marker that had the right one when this process last looked does not serve: it is away.
        """
        seen = self.seen()
        if seen == Seen(None, None):
            self._redis.set(keys.INSTALLATION, f"{new_installation_id()} {self._place}", nx=True)
            seen = self.seen()
        if seen.redis and seen.spool is None and seen.place == self._place:
            self._spool.create(MARKER, _marker(seen.redis))
            seen = self.seen()
        while not _agree(seen) and (again := self.seen()) != seen:
            # Somebody was making it, between a look at the one and a look at the other.
            seen = again
        if seen.redis is None or not _agree(seen):
            self._id = None
            if seen.spool is None and seen.redis == self._last_id:
                raise SpoolError(self._told(seen))
            raise InstallationMismatch(self._told(seen))
        if seen.place:
            self._write(seen.redis)
        self._id = self._last_id = seen.redis
        return self._id

    def look(self) -> None:
        """Raises `InstallationMismatch` where the spool has an id and Redis none: it was emptied, or is another one."""
        seen = self.seen()
        if seen.redis is None and seen.spool is not None:
            raise InstallationMismatch(self._told(seen))

    def seen(self) -> Seen:
        """The ids that stand in both places now."""
        standing = cast("bytes | None", self._redis.get(keys.INSTALLATION))
        known, _, place = (standing or b"").decode(errors="replace").partition(" ")
        return Seen(known or None, self._marked(), place)

    def adopt(self, *, over: bool = False) -> str:
        """Gives the place that has no id the other's; returns it.

        With `over`, Redis takes on the spool's id though it has another one. Raises `InstallationMismatch` where there
        is nothing to take on, or two ids without `over`.
        """
        seen = self.seen()
        if seen.spool is None and seen.redis is not None:
            self._spool.create(MARKER, _marker(seen.redis))
        elif seen.spool is not None and (over or seen.redis in (None, seen.spool) or seen.place):
            self._write(seen.spool)
        elif seen.spool is not None:
            raise InstallationMismatch(self._told(seen))
        return self.check()

    def _write(self, known: str) -> None:
        # What carries this id will soon be at the provider: Redis must not forget it.
        durably(self._redis, lambda pipe: pipe.set(keys.INSTALLATION, known), replicas=self._replicas)

    def _marked(self) -> str | None:
        # Where there are no hard links, somebody may just be writing it.
        for pause in (0.05, 0.2, 0.5, None):
            if not self._spool.exists(MARKER):
                return None
            try:
                known = msgspec.json.decode(self._spool.read(MARKER), type=_Marker).installation
            except ValueError:  # JSON, its form, and the encoding of its text
                known = ""
            if INSTALLATION_ID.fullmatch(known):
                return known
            if pause is not None:
                time.sleep(pause)
        raise InstallationMismatch(f"{self._there}: {MARKER} is not readable; bring it back from a backup")

    def _told(self, seen: Seen) -> str:
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
