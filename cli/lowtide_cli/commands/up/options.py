"""The options of `lowtide up`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `lowtide up`. A port of 0 is the usual one if that is free, else any free one."""

    data_dir: Path | None = None
    emulator: bool | None = None
    """None: use it only if no access to Google is configured."""
    flower: bool | None = None
    """None: run it if its extra is installed."""
    one_worker: bool = False
    threads: int = 8
    processes: int = 2
    redis_port: int = 0
    emulator_port: int = 0
    storage_port: int = 0
    bigquery_port: int = 0
    flower_port: int = 0
