"""The command itself, with what its commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lowtide_cli.terminal import EXIT_CODES, NOTHING_DONE, App, on_interruption, warn_of_unknown_variables

app = App(
    name="lowtide",
    help="A job queue for batch inference on Gemini: half the price, nothing lost, nothing paid twice.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

ONE_MACHINE, BATCHES, SINGLES, OPERATIONS = "On one machine", "Batches", "Single requests", "Operations"

# Here in words, as help must not import the package, which takes a second.
STATES = "pending|running|cancelling|completed|failed|expired|cancelled|deleting"
PROVIDERS = "gemini|vertex"


def one_of(words: str) -> dict[str, Any]:
    """Returns the parameters of an option or argument that takes one of some words: its help and its completion."""
    return {"metavar": words, "autocompletion": words.split("|").copy}


BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Batch id, as printed by `submit`.", show_default=False)]
Letters = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as printed by `dead-letters list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Provider = Annotated[
    str | None,
    typer.Option(**one_of(PROVIDERS), help="Provider to use.", show_default="LOWTIDE_PROVIDER"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def print_version(wanted: bool = True) -> None:
    """Prints the version and ends, if it is wanted."""
    from importlib.metadata import version as installed

    if wanted:
        typer.echo(f"lowtide {installed('lowtide')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand not in {"version", "demo"}:
        # It imports most of what commands need, so that it takes half of a short command's time.
        with on_interruption(NOTHING_DONE):
            warn_of_unknown_variables()
