"""The optional parts of Lowtide that commands need."""

from __future__ import annotations

from lowtide.extras import installed, missing
from lowtide_cli.terminal import MissingExtra

__all__ = ["installed", "need"]


def need(extra: str, purpose: str) -> None:
    """Raises `MissingExtra` unless the extra is installed."""
    if not installed(extra):
        raise MissingExtra(missing(purpose, extra))
