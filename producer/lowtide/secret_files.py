"""Settings whose values are in files, as Docker and Kubernetes mount secrets.

`LOWTIDE_REDIS_URL_FILE` names the file with the value of `LOWTIDE_REDIS_URL`, and so with every other setting. The
directory `LOWTIDE_SECRETS_DIR` has a file for each setting that it provides, named as the setting's variable.

No error from this module repeats the text of a file, or a path: a secret may have been written there by mistake.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, EnvSettingsSource

from lowtide.errors import InvalidSettings
from lowtide.wrong_values import ENV_FILE, FILE_SUFFIX, PREFIX, variables_of

DIRECTORY = "secrets_dir"
"""The setting that names the directory."""
_DIRECTORY_VARIABLE = f"{PREFIX}{DIRECTORY.upper()}"
_MOST_BYTES = 1 << 20


def from_named_files(settings: type[BaseSettings], given: Mapping[str, str | None]) -> EnvSettingsSource:
    """Returns a source of the settings whose files are named among these variables.

    - `given`: variables, by their names in lower case.

    Raises `InvalidSettings` for a file without a value, and for a variable that is set beside its file's name.
    """
    return _source(settings, _named(_variables(settings), given))


def from_directory(settings: type[BaseSettings], directory: str | None) -> EnvSettingsSource:
    """Returns a source of the settings that have a file in a directory. Raises `InvalidSettings` as above."""
    return _source(settings, _in_directory(_variables(settings), directory))


def variable_or_file(name: str) -> str | None:
    """Returns the value of a variable that is no setting, from wherever a setting's would come; None without one.

    Raises `InvalidSettings` for a file without a value, and for a variable that is set beside its file's name.
    """
    environment, env_file = _lowered(os.environ), _lowered(env_file_values())
    directory = environment.get(_DIRECTORY_VARIABLE.lower()) or env_file.get(_DIRECTORY_VARIABLE.lower())
    found = _in_directory([name], directory)
    for given in (env_file, environment):
        found |= _named([name], given) | given
    return found.get(name.lower())


def env_file_values() -> dict[str, str | None]:
    """Returns the variables of `.env`. A file that cannot be read has none: it is an error of the settings."""
    with suppress(OSError, UnicodeDecodeError):
        return dotenv_values(ENV_FILE)
    return {}


def names_in_directory(directory: str | None) -> list[str]:
    """Returns the names of the files in a directory, or nothing if it cannot be read."""
    try:
        return [path.name for path in Path(directory).iterdir()] if directory else []
    except (OSError, ValueError):
        return []


def _lowered(given: Mapping[str, str | None]) -> dict[str, str]:
    return {name.lower(): value for name, value in given.items() if value}


def _variables(settings: type[BaseSettings]) -> list[str]:
    fields = settings.model_fields.items()
    return [variable for name, field in fields if name != DIRECTORY for variable in variables_of(name, field)]


def _source(settings: type[BaseSettings], values: dict[str, str]) -> EnvSettingsSource:
    source = EnvSettingsSource(settings)
    source.env_vars = values
    return source


def _named(variables: Iterable[str], given: Mapping[str, str | None]) -> dict[str, str]:
    values = {}
    for variable in variables:
        path = given.get(f"{variable}{FILE_SUFFIX}".lower())
        if path is None:
            continue
        if given.get(variable.lower()) is not None:
            raise InvalidSettings(f"{variable} and {variable}{FILE_SUFFIX} are both set: unset one of them")
        values[variable.lower()] = _read(Path(path), f"{variable}{FILE_SUFFIX}: the file that it names")
    return values


def _in_directory(variables: Iterable[str], directory: str | None) -> dict[str, str]:
    if directory is None:
        return {}
    known = {variable.lower(): variable for variable in variables}
    try:
        paths = sorted(Path(directory).iterdir())
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{_DIRECTORY_VARIABLE}: the directory cannot be read ({_reason(error)}); write the path of a directory "
            "with a file for each secret, named as its variable"
        ) from None
    return {
        name: _read(path, f"{_DIRECTORY_VARIABLE}: the file {known[name]} in this directory")
        for path in paths
        if (name := path.name.lower()) in known
    }


def _read(path: Path, described: str) -> str:
    """The text of a file, without the blanks and line ends around it."""
    try:
        # A pipe would block for ever when the settings are read a second time.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidSettings(f"{described} is not a regular file; write the path of a file that holds the value")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise InvalidSettings(f"{described} is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{described} cannot be read ({_reason(error)}); write the path of a file that this user may read"
        ) from None
    if len(content) > _MOST_BYTES:
        raise InvalidSettings(f"{described} is larger than {_MOST_BYTES:,} bytes; write only the value into it")
    if not text:
        raise InvalidSettings(f"{described} is empty; write the value into it")
    return text


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "this is not a path"
