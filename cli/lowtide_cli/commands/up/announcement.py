"""The announcement when everything runs: addresses, logins, and the line for another terminal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from lowtide_cli.commands.demo import SUGGESTED
from lowtide_cli.local import LOGIN_VARIABLE, PAGES, Child, Stack, given_login

if TYPE_CHECKING:
    from lowtide_worker.settings import WorkerSettings

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def announce(console: Console, stack: Stack, settings: WorkerSettings, exports: Path | None) -> None:
    """Prints where everything is, and how to use it from another terminal.

    - `exports`: the file with the environment for another terminal. None: it needs none.
    """
    from lowtide.settings import without_password

    shape = stack.shape
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    kind = "embedded server" if stack.redis else "from your settings"
    url = without_password(stack.redis.url if stack.redis else settings.redis_url.get_secret_value())
    table.add_row("Redis", f"{escape(url)}  [dim]{kind}[/]")
    table.add_row("Provider", provider_line(stack, settings))
    if shape.cloud:
        table.add_row("Cloud Storage", f"{shape.cloud.storage_url}  [dim]stand-in[/]")
        table.add_row("BigQuery", f"{shape.cloud.bigquery_url}  [dim]stand-in, in memory[/]")
    for worker in stack.workers:
        table.add_row(worker.name.capitalize(), f"{_served(worker)}  [dim]pid {worker.pid}[/]")
    if stack.flower_url:
        login = f"[dim]login: {LOGIN_VARIABLE}[/]" if given_login() else f"[dim]login[/] {shape.flower_auth}"
        table.add_row("Flower", f"{stack.flower_url}  {login}")
        table.add_row("Batches", f"{stack.flower_url}{PAGES}")
    table.add_row("Spool", escape(without_password(stack.exports.get("LOWTIDE_SPOOL_URL", settings.spool_url))))
    table.add_row("Logs", escape(f"tail -F {shlex.quote(str(stack.logs))}/*.log"))
    console.print(Panel(table, title="Lowtide is up", title_align="left", border_style="cyan", expand=False))
    if exports:
        # Outside the panel and not wrapped, so that the line can be copied.
        console.print(f"In another terminal, first:  . {shlex.quote(str(exports))}", soft_wrap=True, markup=False)
    if settings.webhook_url and stack.emulator_url:
        console.print("There, to receive the emulator's webhooks:")
        console.print(f"  {hooks_command(settings.webhook_url)}", soft_wrap=True, markup=False)
    console.print(f"For example:  {SUGGESTED}", soft_wrap=True, markup=False)
    console.print("Ctrl-C stops everything.")


def hooks_command(webhook_url: str) -> str:
    """Returns the command that receives events at `webhook_url`, in a terminal with the environment of `lowtide up`."""
    port = urlsplit(webhook_url).port
    return "lowtide hooks serve" + (f" --port {port}" if port else "")


def provider_line(stack: Stack, settings: WorkerSettings) -> str:
    """Returns the line about the provider, as markup: its name or address, and whether jobs cost money."""
    vertex = settings.provider == "vertex"
    if stack.emulator_url:
        return f"{stack.emulator_url}  [dim]emulator{' of Vertex AI' if vertex else ''}: answers are made up[/]"
    if vertex:
        name = f"Vertex AI, project {settings.google_cloud_project} in {settings.google_cloud_location}"
        elsewhere = settings.google_vertex_base_url
    else:
        name, elsewhere = "Gemini, with your API key", settings.google_gemini_base_url
        if elsewhere and urlsplit(elsewhere).hostname in _THIS_MACHINE:
            return f"{escape(elsewhere)}  [dim]GOOGLE_GEMINI_BASE_URL, on this machine[/]"
    return escape(name) + (f", at {escape(elsewhere)}" if elsewhere else ": [yellow]jobs cost money[/]")


def _served(worker: Child) -> str:
    words = worker.command
    queues, pool, concurrency = (words[words.index(option) + 1] for option in ("-Q", "-P", "-c"))
    return f"{queues.replace(',', ', ')} on {concurrency} {'threads' if pool == 'threads' else 'processes'}"
