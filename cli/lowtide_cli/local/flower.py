"""Flower as Lowtide runs it: its command line, and the login that it keeps between starts."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from lowtide.secret_files import variable_or_file
from lowtide_cli.local.private import kept_secret
from lowtide_cli.terminal import CommandError

LOGIN_VARIABLE = "LOWTIDE_FLOWER_BASIC_AUTH"
PAGES = "/lowtide"
"""The path of the pages of Lowtide in Flower."""
_COLUMNS = "name,kwargs,state,result,received,runtime,worker,uuid"
"""The columns of the task list: the arguments and the result of a task come before its random id."""
_TASKS = 20_000
"""Most tasks that Flower holds in memory."""


def flower_command(*, address: str, port: int) -> list[str]:
    """Returns the command that runs Flower with Lowtide's columns; its login is in `flower_environment`."""
    flower = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "flower"]
    return [*flower, f"--address={address}", f"--port={port}", f"--max_tasks={_TASKS}", f"--tasks_columns={_COLUMNS}"]


def flower_environment(login: str) -> dict[str, str]:
    """Returns the variable with Flower's login: `ps` shows arguments to every user, but not the environment."""
    return {"FLOWER_BASIC_AUTH": login}


def given_login() -> str | None:
    """Returns the login of the environment or of its file, as `user:password`.

    Raises `CommandError` for one of another form, and `InvalidSettings` for a file that has none.
    """
    given = variable_or_file(LOGIN_VARIABLE)
    if given and not all(given.partition(":")):
        raise CommandError(f"{LOGIN_VARIABLE}: expected user:password")
    return given or None


def kept_login(folder: Path) -> str:
    """Returns the login that is kept in a folder. A browser may remember it."""
    return kept_secret(folder / "login", lambda: f"lowtide:{generated_password()}")


def generated_password() -> str:
    """Returns a new password for Flower."""
    return secrets.token_urlsafe(12)
