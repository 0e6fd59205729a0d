"""The contender's side of the benchmarks: a process that gets ready, waits for the start, runs once and reports.

Imports are done before the start and reported separately. The clock runs from the start until the user's process has
every result. Standard output carries only the protocol: one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Task(NamedTuple):
    """The task of a contender."""

    size: int
    """The number of requests, or rows."""
    url: str
    """The emulator's URL."""
    folder: Path
    """A folder for its files."""
    option: str
    """A further option, whose meaning depends on the contender."""


class Answer(NamedTuple):
    """The results that a contender has at the end."""

    rows: int
    characters: int
    """The length of all answers together."""
    phases: Mapping[str, float] = MappingProxyType({})
    """The seconds of each of its stages, if it can measure them."""


def run(work: Callable[[Task], Answer]) -> None:
    """Runs a contender. Its module calls this at the end."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description=work.__doc__)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--url", default="")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--option", default="")
    task = Task(**vars(parser.parse_args()))

    def say(**what: Any) -> None:
        protocol.write(json.dumps(what) + "\n")

    say(ready=True, import_seconds=resource.getrusage(resource.RUSAGE_SELF).ru_utime)
    sys.stdin.readline()
    began = time.monotonic()
    try:
        answer = work(task)
    except BaseException as error:  # noqa: BLE001 - any error of a contender is its result
        say(seconds=time.monotonic() - began, error=f"{type(error).__name__}: {error}"[:2000])
    else:
        say(seconds=time.monotonic() - began, **answer._asdict() | {"phases": dict(answer.phases)})
    # Wait until the other side has read the peak memory of this process.
    sys.stdin.readline()
    protocol.flush()
    os._exit(0)
