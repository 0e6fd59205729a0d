"""The storages that a spool may be in, for random runs: a folder, or an object store behind a proxy that fails."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faulty_http import Fault, FaultyProxy
from tests.object_stores import new_bucket, object_store

KINDS = ("folder", "gs", "s3")
FAULTS: tuple[Fault, ...] = (429, 500, 503, "cut before", "cut after", "half an answer")
_ENDPOINT = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}


@dataclass
class Storage:
    """One storage: the variables by which processes find it, and the proxy in between."""

    kind: str
    env: Mapping[str, str] = field(default_factory=dict)
    proxy: FaultyProxy | None = None


class Storages:
    """All of them, each started when it is first chosen. `CHAOS_SPOOL` names the only one to choose."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cleanup = ExitStack()
        self._servers: dict[str, tuple[dict[str, str], FaultyProxy]] = {}
        self._kinds = (os.environ["CHAOS_SPOOL"],) if "CHAOS_SPOOL" in os.environ else KINDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def choose(self, chance: random.Random) -> Storage:
        """Returns a storage with nothing in it."""
        kind = chance.choice(self._kinds)
        if kind == "folder":
            return Storage(kind)
        if kind not in self._servers:
            self._servers[kind] = self._start(kind)
        env, proxy = self._servers[kind]
        # This process has clients of the store too. One variable of another store does no harm to it.
        os.environ.update(env)
        return Storage(kind, env | {"LOWTIDE_SPOOL_URL": f"{new_bucket(kind)}/spool"}, proxy)

    def _start(self, kind: str) -> tuple[dict[str, str], FaultyProxy]:
        before = dict(os.environ)
        self._cleanup.callback(os.environ.update, before)
        self._cleanup.callback(os.environ.clear)
        env = self._cleanup.enter_context(object_store(kind, self._folder / kind))
        proxy = self._cleanup.enter_context(FaultyProxy(env[_ENDPOINT[kind]]))
        return env | {_ENDPOINT[kind]: proxy.url}, proxy
