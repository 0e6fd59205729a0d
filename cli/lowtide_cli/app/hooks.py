"""Commands for webhooks of the provider."""

from __future__ import annotations

from typing import Annotated

import typer

from lowtide_cli.app.root import OPERATIONS, AsJson, Yes, app
from lowtide_cli.terminal import App

hooks = App(
    name="hooks",
    no_args_is_help=True,
    help="Receive webhooks of the provider, and manage static webhooks of the Gemini Developer API.",
)
app.add_typer(hooks, rich_help_panel=OPERATIONS)

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="Id, as printed by `hooks list`.", show_default=False)]


@hooks.command("serve")
def serve_hooks(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on. 0: any free one.")
    ] = 9465,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Receive webhooks of the provider until Ctrl-C.

    The provider needs an https:// address: put a proxy with TLS in front. The emulator of `lowtide up` needs none:
    start it with LOWTIDE_WEBHOOK_URL=http://127.0.0.1:9465/gemini, run the line that it prints for another terminal,
    and then this command (docs/how-to.md, "Webhooks on this machine").
    """
    from lowtide_cli.commands.hooks import serve

    serve(host=host, port=port)


@hooks.command("register")
def register_hook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Public URL of the endpoint /gemini.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the webhook, for people.")] = "lowtide",
    as_json: AsJson = False,
) -> None:
    """Register a static webhook for the ends of all batches of the project, and print its signing secret."""
    from lowtide_cli.commands.hooks import register

    register(url, name=name, as_json=as_json)


@hooks.command("list")
def list_hooks(as_json: AsJson = False) -> None:
    """List the static webhooks of the project."""
    from lowtide_cli.commands.hooks import show

    show(as_json=as_json)


@hooks.command("rotate")
def rotate_hook(
    webhook_id: WebhookId,
    immediately: Annotated[
        bool, typer.Option("--immediately", help="End the old secrets at once, not after 24 hours.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new signing secret for a static webhook, and print it."""
    from lowtide_cli.commands.hooks import rotate

    rotate(webhook_id, immediately=immediately, as_json=as_json)


@hooks.command("ping")
def ping_hook(webhook_id: WebhookId) -> None:
    """Have the provider send a test event to a static webhook."""
    from lowtide_cli.commands.hooks import ping

    ping(webhook_id)


@hooks.command("delete")
def delete_hook(webhook_id: WebhookId, yes: Yes = False) -> None:
    """Delete a static webhook."""
    from lowtide_cli.commands.hooks import delete

    delete(webhook_id, yes=yes)
