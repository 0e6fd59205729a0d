"""The state that an interrupted submit leaves, as a note of the exception that interrupted it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NOT_RECORDED = "nothing is recorded, and nothing will be sent"
"""The note of an interruption that came before anything could be recorded."""


@contextmanager
def not_recorded() -> Iterator[None]:
    """Adds the note to an interruption (Ctrl-C, a signal, a cancelled task) of the block, which records nothing."""
    try:
        yield
    except BaseException as error:
        # The errors of a submit are documented, and say it themselves.
        if not isinstance(error, Exception):
            error.add_note(NOT_RECORDED)
        raise


def came_before_the_record(interruption: BaseException) -> bool:
    """Returns whether nothing is recorded. After other interruptions a batch may be recorded, and run."""
    return NOT_RECORDED in getattr(interruption, "__notes__", ())
