"""The contender's side of the bench: a process that gets ready, waits for the start, runs once and reports.

Imports are done before the start and are reported apart; the clock runs from the start to the moment when every result
is in the user's hands. Standard output carries only the protocol: one JSON object a line.
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
    """What is asked of a contender."""

    size: int
    """Requests, or rows."""
    url: str
    """The emulator's."""
    folder: Path
    """Where it may write."""
    option: str
    """Anything else, as the contender understands it."""


class Answer(NamedTuple):
    """What a contender has in hand at the end."""

    rows: int
    characters: int
    """Length of all answers together."""
    phases: Mapping[str, float] = MappingProxyType({})
    """Seconds of its stages, where it can tell them apart."""


def run(work: Callable[[Task], Answer]) -> None:
    """Plays the contender: to be called at the end of its module."""
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
    except BaseException as error:  # noqa: BLE001 - whatever stops a contender is its result
        say(seconds=time.monotonic() - began, error=f"{type(error).__name__}: {error}"[:2000])
    else:
        say(seconds=time.monotonic() - began, **answer._asdict() | {"phases": dict(answer.phases)})
    # Stay until the measuring side has read this process's peak memory.
    sys.stdin.readline()
    protocol.flush()
    os._exit(0)
