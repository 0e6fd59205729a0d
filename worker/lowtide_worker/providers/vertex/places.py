"""Names of the places that jobs write to, and the rule that separates Lowtide's own places from those of users.

Each create call has a folder or a table of its own, with a random suffix, so that two jobs of one display name share
nothing:

<LOWTIDE_VERTEX_STORAGE>/outputs/<display name>/<suffix>/prediction-model-<time>/predictions.jsonl
<LOWTIDE_VERTEX_DATASET>.<display name, with _ for ->_<suffix>
"""

from __future__ import annotations

import re
import secrets

from lowtide.addresses import Objects, Table, is_under, parse_objects, parse_table
from lowtide.models import ResultError
from lowtide.protocol import DISPLAY_PREFIX
from lowtide_worker.providers.protocol import Refused

_DISPLAY_NAME = re.compile(rf"{DISPLAY_PREFIX}[a-z0-9-]{{3,64}}-[1-9][0-9]{{0,8}}", re.ASCII)


def new_suffix() -> str:
    """Returns the suffix of one create call."""
    return secrets.token_hex(4)


def table_id(display_name: str) -> str:
    """Returns the name of the table of a job, without its suffix."""
    return display_name.replace("-", "_")


def is_folder_of(uri: str, display_name: str | None) -> bool:
    """Returns whether an object or folder is in a folder that carries a job's display name; None: that of any job."""
    names = uri.split("/")[3:]
    if display_name is not None:
        return display_name in names
    return any(_DISPLAY_NAME.fullmatch(name) for name in names)


def is_table_of(uri: str, display_name: str | None) -> bool:
    """Returns whether a table is named for a job."""
    if display_name is None:
        return False
    name = re.escape(table_id(display_name))
    # Without a suffix: an earlier version has created it.
    return re.fullmatch(rf"bq://[^/]+\.{name}(_[0-9a-f]{{8}})?", uri) is not None


def readable_objects(uri: str, roots: list[str], display_name: str | None) -> Objects:
    """Parses the URI of an object or folder that the provider gave.

    It may be under one of the roots, or named for the job: workers may have other settings than when it was created.
    Raises `Refused` for any other.
    """
    if not is_under(uri, roots) and not is_folder_of(uri, display_name):
        raise _outside(uri, "LOWTIDE_VERTEX_STORAGE")
    try:
        return parse_objects(uri)
    except ValueError:
        raise _outside(uri, "LOWTIDE_VERTEX_STORAGE") from None


def readable_table(uri: str, roots: list[str], display_name: str | None) -> Table:
    """Parses the URI of a table that the provider gave, by the rule of `readable_objects`."""
    if not is_under(uri, roots) and not is_table_of(uri, display_name):
        raise _outside(uri, "LOWTIDE_VERTEX_DATASET")
    try:
        return parse_table(uri)
    except ValueError:
        raise _outside(uri, "LOWTIDE_VERTEX_DATASET") from None


def _outside(uri: str, setting: str) -> Refused:
    message = f"{uri} is outside {setting} and LOWTIDE_VERTEX_LOCATIONS; add it to the latter if workers may read it"
    return Refused(ResultError(reason="OUTSIDE_ROOT", message=message))
