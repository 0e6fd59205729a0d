"""The application that receives webhooks of the provider: an event makes the poll of its job due at once.

An event is a hint. Its content is never used as the state of a job: a worker asks the provider. A service mounts the
application, or `lowtide hooks serve` runs it. It needs the extra `hooks`.

Source: https://ai.google.dev/gemini-api/docs/webhooks
"""

from __future__ import annotations

from lowtide.extras import installed, missing

if not installed("hooks"):
    raise ImportError(missing("lowtide.hooks", "hooks"))

from lowtide.hooks.application import app

__all__ = ["app"]
