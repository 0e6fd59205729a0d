"""`lowtide hooks`: runs the application that receives webhooks of the provider, and manages static webhooks."""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING

import typer

from lowtide.text import on_one_line
from lowtide_cli.extras import need
from lowtide_cli.terminal import CommandError, WrongUsage
from lowtide_cli.terminal.layout import Column, Row, print_rows
from lowtide_cli.terminal.output import print_json, stderr, stdout

if TYPE_CHECKING:
    from lowtide_worker.providers.google.webhooks import StaticWebhook, StaticWebhooks

_BACKLOG = 512
_KEEP = "add it to LOWTIDE_HOOKS_SECRETS of the hooks application; it is not shown again"


def serve(*, host: str, port: int) -> None:
    """Serves until the process is interrupted. Raises `CommandError` where the address cannot be listened on."""
    need("hooks", "`lowtide hooks serve`")
    _log()
    # Deferred: they need the extra.
    from lowtide import hooks
    from lowtide_cli.hooks_server import serve_hooks

    application = hooks.app()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for a socket that names its protocol.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise CommandError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose others with --host and --port"
            ) from error
        url = f"http://{f'[{host}]' if family == socket.AF_INET6 else host}:{listener.getsockname()[1]}"
        # The first word is the address, for scripts.
        stdout().print(f"{url}/gemini and {url}/vertex: listening; Ctrl-C ends it", soft_wrap=True, markup=False)
        serve_hooks(application, listener)


def _log() -> None:
    """Logs to standard error, each line with its event at the end, as workers do."""
    handler = logging.StreamHandler()
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s [event=%(event)s]"
    handler.setFormatter(logging.Formatter(form, defaults={"event": "other"}))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("lowtide").setLevel(logging.INFO)


def register(url: str, *, name: str, as_json: bool) -> None:
    """Registers a static webhook and prints its signing secret."""
    webhook, secret = _webhooks().register(url, name)
    if as_json:
        print_json({**_data(webhook), "secret": secret.get_secret_value()})
        return
    stdout().print(secret.get_secret_value(), soft_wrap=True, markup=False)
    stderr().print(f"webhook {webhook.id} is registered; above is its signing secret: {_KEEP}", soft_wrap=True)


def show(*, as_json: bool) -> None:
    """Prints all static webhooks."""
    found = list(_webhooks().every())
    if as_json:
        print_json([_data(webhook) for webhook in found])
    elif not found:
        stdout().print("there are no static webhooks")
    else:
        columns = [Column("id"), Column("state"), Column("name"), Column("URL"), Column("secrets")]
        print_rows(stdout(), columns, [_row(webhook) for webhook in found])


def rotate(webhook_id: str, *, immediately: bool, as_json: bool) -> None:
    """Makes a new signing secret and prints it."""
    secret = _webhooks().rotate(webhook_id, immediately=immediately)
    if as_json:
        print_json({"id": webhook_id, "secret": secret.get_secret_value()})
        return
    stdout().print(secret.get_secret_value(), soft_wrap=True, markup=False)
    old = "the old ones are not valid any more" if immediately else "the old ones stay valid for 24 hours"
    stderr().print(f"above is the new signing secret: {_KEEP}; {old}", soft_wrap=True)


def ping(webhook_id: str) -> None:
    """Has the provider send a test event."""
    _webhooks().ping(webhook_id)
    stderr().print(f"a test event is on its way to webhook {webhook_id}", soft_wrap=True, markup=False)


def delete(webhook_id: str, *, yes: bool) -> None:
    """Deletes a static webhook."""
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage("there is no terminal to ask for confirmation: add --yes")
        typer.confirm(f"Delete webhook {webhook_id}?", abort=True, err=True)
    _webhooks().delete(webhook_id)
    stderr().print(f"webhook {webhook_id} is deleted", soft_wrap=True, markup=False)


def _webhooks() -> StaticWebhooks:
    need("worker", "`lowtide hooks`")
    # Deferred: only workers' hosts have the worker package.
    from lowtide_worker.providers.google.webhooks import StaticWebhooks
    from lowtide_worker.settings import WorkerSettings

    return StaticWebhooks(WorkerSettings())


def _row(webhook: StaticWebhook) -> Row:
    secrets = ", ".join(f"{shown}..." for shown, _ in webhook.secrets)
    return Row([on_one_line(cell) for cell in (webhook.id, webhook.state, webhook.name or "-", webhook.url, secrets)])


def _data(webhook: StaticWebhook) -> dict[str, object]:
    secrets = [
        {"beginning": shown, "expires": None if expires is None else expires.isoformat()}
        for shown, expires in webhook.secrets
    ]
    return {**webhook._asdict(), "secrets": secrets}
