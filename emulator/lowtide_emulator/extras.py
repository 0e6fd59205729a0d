"""The advice to install an extra."""

from __future__ import annotations


def install(extra: str) -> str:
    """Returns the advice to install an extra, as the end of a sentence."""
    return f'install the extra {extra} of lowtide (see "Install" in the README)'
