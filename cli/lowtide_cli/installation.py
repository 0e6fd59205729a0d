"""`lowtide installation`: whether Redis and spool belong together, and how to join them again."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

import typer
from rich.table import Table

from lowtide import InstallationMismatch, Settings
from lowtide.settings import without_password
from lowtide.spool import Spool
from lowtide.store import Installation, Seen, Store, redis_errors
from lowtide_cli.exits import Exit
from lowtide_cli.findings import Finding, Verdict
from lowtide_cli.output import print_json, stderr, stdout


def show(*, as_json: bool) -> Exit:
    """Prints the id that stands in each place; an error exit where they are not the same."""
    settings = Settings()
    spool = Spool(settings.spool_url)
    with _asking(settings):
        seen = _installation(settings, spool).seen()
    same = seen.redis == seen.spool
    redis_place = without_password(settings.redis_url.get_secret_value())
    spool_place = without_password(spool.url)
    if as_json:
        places = {"redis": {"url": redis_place, "id": seen.redis}, "spool": {"url": spool_place, "id": seen.spool}}
        print_json({"same": same, **places})
    else:
        table = Table.grid(padding=(0, 2))
        table.add_row("Redis", seen.redis or "none", redis_place)
        table.add_row("Spool", seen.spool or "none", spool_place)
        stdout().print(table)
    return Exit.OK if same else Exit.ERROR


def adopt(*, yes: bool, over: bool) -> Exit:
    """Gives the place without an id the other's, a person having looked."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on: add --yes", param_hint="--yes")
        typer.confirm("Have you made sure that this Redis and this spool are to belong together?", abort=True, err=True)
    settings = Settings()
    with _asking(settings):
        known = _installation(settings, Spool(settings.spool_url)).adopt(over=over)
    stderr().print(f"Redis and spool are installation {known}'s; start the workers again", soft_wrap=True)
    return Exit.OK


def check(settings: Settings) -> Finding:
    """Doctor's finding about both."""
    try:
        with _asking(settings):
            installation = _installation(settings, Spool(settings.spool_url))
            if installation.seen() == Seen(None, None):
                # Whoever only looks must not mark two places that may be the wrong ones.
                return Finding("Installation", Verdict.OK, "none yet: the first worker or submit makes it")
            known = installation.check()
    except InstallationMismatch as mismatch:
        return Finding("Installation", Verdict.FAIL, str(mismatch), "docs/how-to.md, Redis and spool belong together")
    return Finding("Installation", Verdict.OK, f"{known}, in Redis and in the spool")


def _installation(settings: Settings, spool: Spool) -> Installation:
    return Store(settings).installation(spool)


def _asking(settings: Settings) -> AbstractContextManager[None]:
    return redis_errors(settings.redis_url.get_secret_value())
