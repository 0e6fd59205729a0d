"""Commands for those who operate Lowtide."""

from __future__ import annotations

from typing import Annotated

import typer

from lowtide_cli.app.root import OPERATIONS, AsJson, Letters, Provider, Yes, app, one_of, print_version
from lowtide_cli.terminal import App, on_interruption


@app.command(rich_help_panel=OPERATIONS)
def jobs(provider: Provider = None, as_json: AsJson = False) -> None:
    """List all jobs of the account at the provider, Lowtide's and others'."""
    from lowtide_cli.commands.jobs import show_jobs

    show_jobs(provider=provider, as_json=as_json)


@app.command(rich_help_panel=OPERATIONS)
def costs(
    by: Annotated[
        str,
        typer.Option(
            metavar="model|provider|account|label:NAME",
            help="Group by which costs are added up.",
            autocompletion=["model", "provider", "account", "label:"].copy,
        ),
    ] = "model",
    since: Annotated[
        str, typer.Option(metavar="DAYS|DAY", help="First day: 30d, or a day such as 2026-11-01.")
    ] = "30d",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with costs in US dollars.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was paid in the last days, and what is left of the budgets."""
    from lowtide_cli.commands.costs import show_costs

    show_costs(by=by, since=since, as_json=as_json, as_csv=as_csv)


dead_letters = App(
    name="dead-letters",
    no_args_is_help=True,
    help="Show, redeliver or drop undelivered segments, batch events and unreadable messages.",
)
app.add_typer(dead_letters, rich_help_panel=OPERATIONS)


@dead_letters.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Most dead letters to print.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the newest dead letters."""
    from lowtide_cli.commands.dead_letters import list_letters

    list_letters(limit=limit, as_json=as_json)


@dead_letters.command("show")
def show_dead_letter(
    letter: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: AsJson = False
) -> None:
    """Show all details of one dead letter."""
    from lowtide_cli.commands.dead_letters import show_letter

    show_letter(letter, as_json=as_json)


@dead_letters.command("redeliver")
def redeliver_dead_letters(
    letters: Letters = [],  # noqa: B006 - Typer's way to say "none or more"
    every: Annotated[bool, typer.Option("--all", help="Redeliver everything that is parked.")] = False,
) -> None:
    """Deliver parked segments and batch events to their handlers again, and count their attempts from one."""
    from lowtide_cli.commands.dead_letters import redeliver

    if not letters and not every:
        raise typer.BadParameter("give ids, or --all", param_hint="ID...")
    redeliver(letters, every=every)


@dead_letters.command("drop")
def drop_dead_letters(letters: Letters) -> None:
    """Remove dead letters. Stored results stay."""
    from lowtide_cli.commands.dead_letters import drop

    drop(letters)


installation = App(
    name="installation",
    invoke_without_command=True,
    help="Show whether Redis and the spool belong together, and join them again.",
)
app.add_typer(installation, rich_help_panel=OPERATIONS)


@installation.callback()
def show_installation(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the installation's id in Redis and in the spool. Exits with 1 if the two differ."""
    if context.invoked_subcommand is None:
        from lowtide_cli.commands.installation import show

        raise typer.Exit(show(as_json=as_json))


@installation.command("adopt")
def adopt_installation(
    yes: Yes = False,
    over: Annotated[
        bool, typer.Option("--over", help="Replace another id in Redis: its data then belongs to this spool.")
    ] = False,
) -> None:
    """Copy the spool's id to Redis, or Redis' id to a spool without one.

    Do this only if you are sure that the two belong together: Redis lost its data, or the spool was moved.
    """
    from lowtide_cli.commands.installation import adopt

    raise typer.Exit(adopt(yes=yes, over=over))


@app.command(rich_help_panel=OPERATIONS)
def health(
    probe: Annotated[str, typer.Argument(**one_of("live|ready"), help="Question to the worker.", show_default=False)],
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Port of the worker.", show_default="LOWTIDE_HEALTH_PORT"),
    ] = None,
) -> None:
    """Ask the worker on this machine whether it is alive, or ready for work.

    Exits with 1 if it is not.
    """
    from lowtide_cli.commands.health import health as run

    raise typer.Exit(run(probe, port=port))


@app.command(rich_help_panel=OPERATIONS)
def metrics(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on. 0: any free one.")
    ] = 9464,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the metrics of this installation for Prometheus, until Ctrl-C."""
    from lowtide_cli.commands.metrics import metrics as run

    run(host=host, port=port)


@app.command(rich_help_panel=OPERATIONS)
def flower(
    address: Annotated[str, typer.Option(help="Address that Flower listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Port of Flower.")] = 5555,
) -> None:
    """Run Flower with Lowtide's pages and the columns that show its tasks, and print its address and login.

    The login is LOWTIDE_FLOWER_BASIC_AUTH=user:password, or is generated once and kept in ~/.lowtide/flower.
    """
    from lowtide_cli.commands.flower import flower as run

    run(address=address, port=port)


@app.command(rich_help_panel=OPERATIONS)
def doctor(as_json: AsJson = False) -> None:
    """Check Redis, spool, provider, Google Cloud and workers, and say how to fix problems.

    Exits with 1 if a check fails: batches do not work, or results do not reach their handler. Warnings do not count.
    """
    with on_interruption("not everything is checked"):
        from lowtide_cli.commands.doctor import doctor as run

        code = run(as_json=as_json)
    raise typer.Exit(code)


@app.command(rich_help_panel=OPERATIONS)
def version() -> None:
    """Print the version."""
    print_version()
