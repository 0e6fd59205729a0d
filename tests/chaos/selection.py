"""The cases of a parametrised test that this run has selected."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import pytest


def selected(request: pytest.FixtureRequest, parameter: str) -> Iterator[Hashable]:
    """The parameter's values in the tests of the requesting module, in the order in which they will run."""
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec"):
            yield item.callspec.params[parameter]
