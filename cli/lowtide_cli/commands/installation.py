"""`lowtide installation`: shows whether Redis and the spool belong together, and joins them again."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

import typer

from lowtide import Settings
from lowtide.settings import without_password
from lowtide.spool import Spool
from lowtide.store import Installation, Store, redis_errors
from lowtide_cli.terminal import Exit, WrongUsage
from lowtide_cli.terminal.layout import Column, Row, print_rows
from lowtide_cli.terminal.output import print_json, stderr, stdout


def show(*, as_json: bool) -> Exit:
    """Prints the id in each place. Returns an error code if the two differ."""
    settings = Settings()
    spool = Spool(settings.spool_url)
    with _asking(settings):
        known = _installation(settings, spool)
        seen = known.seen()
    same = seen.redis == seen.spool
    redis_place = without_password(settings.redis_url.get_secret_value())
    spool_place = without_password(spool.url)
    if as_json:
        places = {"redis": {"url": redis_place, "id": seen.redis}, "spool": {"url": spool_place, "id": seen.spool}}
        print_json({"same": same, **places})
    else:
        rows = [("Redis", seen.redis, redis_place), ("spool", seen.spool, spool_place)]
        columns = [Column("place"), Column("installation"), Column("URL")]
        print_rows(stdout(), columns, [Row([name, identity or "none", url]) for name, identity, url in rows])
    if not same:
        stderr().print(f"lowtide: {known.described(seen)}", soft_wrap=True, markup=False)
    return Exit.OK if same else Exit.ERROR


def adopt(*, yes: bool, over: bool) -> Exit:
    """Copies the id of one place to the other, after a person has made sure that they belong together.

    - `yes`: do not ask for confirmation.
    - `over`: replace another id in Redis.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage("there is no terminal to ask for confirmation: add --yes")
        typer.confirm("Are you sure that this Redis and this spool belong together?", abort=True, err=True)
    settings = Settings()
    with _asking(settings):
        known = _installation(settings, Spool(settings.spool_url)).adopt(over=over)
    stderr().print(f"Redis and the spool now belong to installation {known}; restart the workers", soft_wrap=True)
    return Exit.OK


def _installation(settings: Settings, spool: Spool) -> Installation:
    return Store(settings).installation(spool)


def _asking(settings: Settings) -> AbstractContextManager[None]:
    return redis_errors(settings.redis_url.get_secret_value())
