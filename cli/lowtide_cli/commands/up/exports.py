"""The environment that another terminal needs to use what runs here."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lowtide_cli.local import private_file
from lowtide_cli.terminal import CommandError

if TYPE_CHECKING:
    from lowtide_worker.settings import WorkerSettings

_NAMES = ("env", "lowtide.env")
"""Names of the file for a shell: the folder may be a project's, with a file or a folder of the first name."""
_FIRST_LINE = "# `lowtide up` writes this file whenever it starts.\n"
_VERTEX_SETTINGS = (
    "provider",
    "google_cloud_project",
    "google_cloud_location",
    "google_vertex_base_url",
    "vertex_credentials",
    "vertex_locations",
    "vertex_storage",
    "vertex_dataset",
)
_SHARED_VARIABLES = (
    "LOWTIDE_BUDGETS",
    "LOWTIDE_PRICES",
    "LOWTIDE_SHARE_JOBS",
    "LOWTIDE_LINGER_SECONDS",
    "LOWTIDE_LINGER_REQUESTS",
)
"""Settings that producers and workers need alike: without them, a submit estimates other costs than the workers."""
_GOOGLE_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")


def on_vertex(settings: WorkerSettings) -> bool:
    """Returns whether Vertex AI is used, even beside the Developer API. All its storage must then be emulated too."""
    return settings.provider == "vertex" or settings.vertex_storage is not None


def vertex_exports(settings: WorkerSettings, *, emulator: bool) -> dict[str, str]:
    """Returns the environment that another terminal needs to use the same places and the same provider."""
    if not on_vertex(settings):
        return {}
    found = {} if emulator else {name: os.environ[name] for name in _GOOGLE_VARIABLES if name in os.environ}
    for name in _VERTEX_SETTINGS:
        if name not in settings.model_fields_set:
            continue
        value = getattr(settings, name)
        alias = type(settings).model_fields[name].validation_alias
        variable = alias if isinstance(alias, str) else f"LOWTIDE_{name.upper()}"
        found[variable] = json.dumps(value) if isinstance(value, list) else str(value)
    return found


def shared_exports() -> dict[str, str]:
    """Returns the settings of this environment that producers in another terminal need too."""
    found = {name: os.environ[name] for name in _SHARED_VARIABLES if os.environ.get(name)}
    if "LOWTIDE_PRICES" in found:
        found["LOWTIDE_PRICES"] = str(Path(found["LOWTIDE_PRICES"]).absolute())
    return found


def own_spool(data_dir: Path | None) -> dict[str, str]:
    """Returns the variable for the spool of this run, unless it is set already. `--data-dir` holds the spool too."""
    from lowtide import Settings

    settings = Settings()
    if "spool_url" in settings.model_fields_set:
        return {}
    return {"LOWTIDE_SPOOL_URL": str(data_dir.absolute() / "spool") if data_dir else settings.spool_url}


def hooks_exports(webhook_url: str | None, emulator_url: str | None) -> dict[str, str]:
    """Returns the environment by which events of the emulator are received, and jobs are created with a webhook."""
    if webhook_url is None or emulator_url is None:
        return {}
    return {"LOWTIDE_WEBHOOK_URL": webhook_url, "LOWTIDE_HOOKS_KEYS_URL": f"{emulator_url}/.well-known/jwks.json"}


def write_exports(directory: Path, exports: Mapping[str, str]) -> Path | None:
    """Writes the file for a shell in another terminal, for this user alone; returns None where it would be empty.

    The password of the embedded Redis and the key of the emulator are in it, which are in this folder anyway. Raises
    `CommandError` where files that are not of `lowtide up` have its names.
    """
    if not exports:
        return None
    path = next((path for name in _NAMES if _is_free(path := directory / name)), None)
    if path is None:
        raise CommandError(
            f"{directory} has other files of the names {' and '.join(_NAMES)}: choose another --data-dir"
        )
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()]
    private_file(path, "".join([_FIRST_LINE, *lines]))
    return path


def _is_free(path: Path) -> bool:
    """Returns whether there is nothing under this name, or only the file of an earlier `lowtide up`."""
    if not os.path.lexists(path):
        return True
    try:
        # To open a pipe would wait for its writer.
        if not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(len(_FIRST_LINE)) == _FIRST_LINE
    except OSError:
        return False
