"""Commands that run servers and workers on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowtide_cli.app.root import ONE_MACHINE, app


def _port(server: str, usual: int) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=0,
        max=65535,
        metavar="PORT",
        help=f"Port of {server}.",
        show_default=f"{usual}, or a free one if it is taken",
    )
    return option


@app.command(rich_help_panel=ONE_MACHINE)
def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for data and logs.", show_default="~/.lowtide", file_okay=False),
    ] = None,
    emulator: Annotated[
        bool | None,
        typer.Option(
            "--emulator/--no-emulator",
            help="Use an emulator instead of Google.",
            show_default="only if no access to Google is configured",
        ),
    ] = None,
    flower: Annotated[
        bool | None,
        typer.Option("--flower/--no-flower", help="Run Flower.", show_default="if it is installed"),
    ] = None,
    one_worker: Annotated[bool, typer.Option("--one-worker", help="Run one worker for both queues.")] = False,
    threads: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Threads of the jobs worker.")] = 8,
    processes: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Processes of the results worker.")] = 2,
    redis_port: Annotated[int, _port("Redis", 6379)] = 0,
    emulator_port: Annotated[int, _port("the emulator", 8080)] = 0,
    storage_port: Annotated[int, _port("the stand-in for Cloud Storage", 4443)] = 0,
    bigquery_port: Annotated[int, _port("the stand-in for BigQuery", 9050)] = 0,
    flower_port: Annotated[int, _port("Flower", 5555)] = 0,
) -> None:
    """Run Redis, workers, Flower and an emulator on this machine, until Ctrl-C or SIGTERM.

    In another terminal, run the line that it prints: it sets the variables by which commands and programs find it.
    An embedded Redis-compatible server runs unless LOWTIDE_REDIS_URL is set. The emulator runs unless GEMINI_API_KEY or
    GOOGLE_API_KEY is set (here or in .env); with LOWTIDE_PROVIDER=vertex, unless GOOGLE_CLOUD_PROJECT and
    LOWTIDE_VERTEX_STORAGE are set. The emulator of Vertex AI comes with stand-ins for Cloud Storage and BigQuery.
    Flower's login is generated once and kept; set LOWTIDE_FLOWER_BASIC_AUTH=user:password to choose it.
    """
    from lowtide_cli.commands.up import Options
    from lowtide_cli.commands.up import up as run

    options = Options(
        data_dir=data_dir,
        emulator=emulator,
        flower=flower,
        one_worker=one_worker,
        threads=threads,
        processes=processes,
        redis_port=redis_port,
        emulator_port=emulator_port,
        storage_port=storage_port,
        bigquery_port=bigquery_port,
        flower_port=flower_port,
    )
    raise typer.Exit(run(options))


@app.command(rich_help_panel=ONE_MACHINE)
def demo(
    flower: Annotated[bool, typer.Option("--flower", help="Run Flower too, and keep it running until Ctrl-C.")] = False,
    vertex: Annotated[
        bool,
        typer.Option("--vertex", help="Use Vertex AI: from and to Cloud Storage, then BigQuery, all emulated."),
    ] = False,
) -> None:
    """Run a few hundred requests through real processes, and check every result.

    Everything runs in a temporary folder on free ports, against the emulator. It needs no key, costs nothing and leaves
    nothing behind.
    """
    from lowtide_cli.commands.demo import demo as run

    raise typer.Exit(run(flower=flower, vertex=vertex))
