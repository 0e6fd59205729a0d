"""Commands about single requests."""

from __future__ import annotations

from typing import Annotated

import typer

from lowtide_cli.app.root import SINGLES, AsJson, Provider, app
from lowtide_cli.terminal import EXIT_CODES_OF_SINGLES

Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Longest wait; after it the exit code is 1, and the request continues.",
        show_default="no limit",
    ),
]


@app.command(rich_help_panel=SINGLES, epilog=EXIT_CODES_OF_SINGLES)
def ask(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text to send. Use - for standard input.", show_default=False)
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, such as gemini-3.5-flash.", show_default=False)
    ],
    key: Annotated[
        str | None,
        typer.Option("--key", "-k", help="Key for safe retries: the same prompt with the same key is asked once."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Customer for whom it is asked: the label tenant.")
    ] = None,
    on_result: Annotated[
        str | None, typer.Option(metavar="HANDLER", help="Handler: a Celery task, an https:// URL or stream://NAME.")
    ] = None,
    reuse: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Take the answer to an equal request with --reuse that is in flight or was answered in this time.",
            show_default="ask again",
        ),
    ] = None,
    provider: Provider = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the answer, or print the ticket at once.")
    ] = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question, and print the answer.

    Lowtide sends it in a batch together with others, at batch prices: an answer takes minutes, and up to a day. The
    request is safe as soon as its ticket is shown. To stop waiting, press Ctrl-C; `lowtide ticket TICKET` has the
    answer later.
    """
    from lowtide_cli.commands.ask import Question
    from lowtide_cli.commands.ask import ask as run

    question = Question(
        prompt=prompt,
        model=model,
        key=key,
        options={"tenant": tenant, "on_result": on_result, "reuse": reuse, "provider": provider},
    )
    raise typer.Exit(run(question, wait=wait, timeout=timeout, as_json=as_json))


@app.command(rich_help_panel=SINGLES, epilog=EXIT_CODES_OF_SINGLES)
def ticket(
    ticket_id: Annotated[
        str, typer.Argument(metavar="TICKET", help="Ticket, as printed by `ask`.", show_default=False)
    ],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the answer.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of a single request, and its answer."""
    from lowtide_cli.commands.ticket import show_ticket as run

    raise typer.Exit(run(ticket_id, wait=wait, timeout=timeout, as_json=as_json))
