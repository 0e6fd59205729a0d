"""Calls to a provider, measured where the stages make them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lowtide_worker.deadlines import elapsed
from lowtide_worker.metrics.measurements import Measurements
from lowtide_worker.providers import Provider

_CALLS = (
    "upload",
    "ready",
    "create",
    "get",
    "jobs",
    "inputs",
    "cancel",
    "delete",
    "delete_input",
    "clear",
    "parts",
    "read",
    "download",
)
"""The methods of a provider that call it. The others decode rows, once for each segment."""
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def measure_calls(provider: Provider, name: str, measurements: Measurements) -> Provider:
    """Has the calls of a provider measured under its name; returns the provider."""
    for call in _CALLS:
        setattr(provider, call, _measured(getattr(provider, call), name, call, measurements))
    return provider


def _measured(
    method: Callable[_Arguments, _Answer], provider: str, call: str, measurements: Measurements
) -> Callable[_Arguments, _Answer]:
    @functools.wraps(method)
    def measured(*args: _Arguments.args, **named: _Arguments.kwargs) -> _Answer:
        began = elapsed()
        problem: Exception | None = None
        try:
            return method(*args, **named)
        except Exception as error:
            problem = error
            raise
        finally:
            measurements.called(provider, call, elapsed() - began, problem)

    return measured
