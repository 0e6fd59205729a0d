"""`lowtide flower`: runs Flower with Lowtide's pages, the columns that show its tasks, and a login."""

from __future__ import annotations

import os
from pathlib import Path

from lowtide import BatchQueue
from lowtide_cli.extras import need
from lowtide_cli.local import (
    LOGIN_VARIABLE,
    PAGES,
    flower_command,
    flower_environment,
    free_port,
    given_login,
    kept_login,
)
from lowtide_cli.terminal import CommandError
from lowtide_cli.terminal.output import stdout


def flower(*, address: str, port: int) -> None:
    """Becomes Flower: this process runs it from here on, so signals and exit codes are Flower's own."""
    need("flower", "`lowtide flower`")
    from lowtide_worker.settings import WorkerSettings  # deferred: a part of the extra

    settings = WorkerSettings()  # an invalid setting ends this command with one line, before anything starts
    login = given_login() or kept_login(_folder())
    if free_port(port) != port:
        raise CommandError(f"port {port} is in use, perhaps by `lowtide up`: choose another one with --port")
    BatchQueue(settings).list(page_size=1)  # raises where Redis does not answer: Flower would wait for it
    shown = f"login: {LOGIN_VARIABLE}" if given_login() else f"login {login}"
    stdout().print(f"Flower at http://{address}:{port}  {shown}", soft_wrap=True, markup=False)
    stdout().print(f"Batches at http://{address}:{port}{PAGES}", soft_wrap=True, markup=False)
    command = flower_command(address=address, port=port)
    os.execve(command[0], command, {**os.environ, **flower_environment(login)})  # noqa: S606 - no shell is needed


def _folder() -> Path:
    try:
        return Path.home() / ".lowtide" / "flower"
    except RuntimeError:
        raise CommandError(f"there is no home directory for the login: set {LOGIN_VARIABLE}=user:password") from None
