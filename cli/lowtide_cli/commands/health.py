"""`lowtide health`: asks the worker on this machine for its health, as an HTTP probe does."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException

import typer

from lowtide_cli.terminal import CommandError, Exit

_PATHS = {"live": "/livez", "ready": "/readyz"}
_SECONDS = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a worker listens on all addresses
_MOST_BYTES = 1000


def health(probe: str, *, port: int | None) -> Exit:
    """Prints the worker's answer. Raises `CommandError` if there is none.

    - `port`: the port of the worker. None: the one of the settings.
    """
    if probe not in _PATHS:
        raise typer.BadParameter(f"{probe!r} is not live or ready", param_hint="live|ready")
    from lowtide_worker.settings import WorkerSettings  # deferred: importing the settings takes time

    settings = WorkerSettings()
    port = port or settings.health_port
    if not port:
        raise CommandError("workers serve no probes: set LOWTIDE_HEALTH_PORT, for the worker and for this command")
    host = _ANY.get(settings.health_host, settings.health_host)
    connection = HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", _PATHS[probe])
        reply = connection.getresponse()
        text = reply.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or f"{error}" or type(error).__name__
        raise CommandError(f"no worker answers on {host}:{port}: {reason}; is it running with this port?") from error
    finally:
        connection.close()
    typer.echo("".join(char for char in text if char.isprintable()))
    return Exit.OK if reply.status == 200 else Exit.ERROR
