"""`lowtide demo`: a few hundred real requests through real processes, each result checked by its key."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowtide import BatchQueue, BatchStatus, Request, Result, ResultStatus, Settings, WaitTimeout
from lowtide_cli.errors import CommandError
from lowtide_cli.exits import Exit
from lowtide_cli.extras import need
from lowtide_cli.output import stdout
from lowtide_cli.stack import Shape, Stack, generated_password
from lowtide_cli.topics import EXAMPLES, questions
from lowtide_cli.watch import follow

MODEL = "gemini-2.5-flash"
_SHOWN = 10
_LONGEST_SECONDS = 60.0
_SETTINGS = {
    "LOWTIDE_MAX_REQUESTS_PER_JOB": "60",
    "LOWTIDE_SEGMENT_ROWS": "30",
    "LOWTIDE_POLL_FIRST_SECONDS": "1",
    "LOWTIDE_POLL_MAX_SECONDS": "2",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.2",
}


def demo(*, flower: bool) -> Exit:
    """Runs it; any code but `OK` means that a request came back without its result, or not at all."""
    console = stdout()
    need("worker", "`lowtide demo`")
    need("emulator", "`lowtide demo`")
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    _forget_settings()
    # In a folder of its own no `.env` is found either: a demo must never reach Google.
    with tempfile.TemporaryDirectory(prefix="lowtide-demo-") as name, chdir(name):
        folder = Path(name)
        shape = Shape(
            directory=folder,
            environment={**os.environ, **_SETTINGS},
            emulator_options=("--pending-seconds", "1", "--running-seconds", "2"),
            flower=flower,
            flower_auth=f"demo:{generated_password()}",
        )
        stack = Stack(shape, exports={"LOWTIDE_SPOOL_URL": str(folder / "spool")})
        try:
            with console.status("starting Redis, the emulator and two workers"):
                stack.start()
            code = _run(console, stack)
            if flower:
                _linger(console, stack)
        except KeyboardInterrupt:
            console.print("\nstopped; nothing is left behind")
            code = Exit.INTERRUPTED
        finally:
            with console.status("stopping"):
                stack.stop()
    return code


def _forget_settings() -> None:
    for variable in [name for name in os.environ if name.startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_", "FLOWER_"))]:
        del os.environ[variable]


def _run(console: Console, stack: Stack) -> Exit:
    pids = ", ".join(f"{child.name} {child.pid}" for child in stack.children)
    console.print(f"processes: {pids}", style="dim")
    if stack.flower_url:
        console.print(f"Flower at {stack.flower_url}, login {stack.shape.flower_auth}")
    if not EXAMPLES.is_file():
        console.print("examples/topics.jsonl is not here: Python's own texts alone will do", style="dim")
    keys: list[str] = []

    def requests() -> Iterator[Request | Mapping[str, object]]:
        for request in questions():
            keys.append(request.key if isinstance(request, Request) else str(request["key"]))
            yield request

    url = stack.exports["LOWTIDE_REDIS_URL"]
    queue = BatchQueue(Settings(redis_url=SecretStr(url), spool_url=stack.exports["LOWTIDE_SPOOL_URL"]))
    started = time.monotonic()
    batch = queue.submit(requests(), model=MODEL, labels={"demo": "topics"})
    console.print(f"submitted {len(keys):,} requests as batch {batch.id}")
    try:
        status = follow(batch, farewell=False, timeout=_LONGEST_SECONDS)
    except WaitTimeout as error:
        # The folder with the logs goes when the demo ends, so what they say must be said now.
        logs = [f"  {worker.name} | {line}" for worker in stack.workers for line in worker.last_lines()]
        raise CommandError("\n".join([str(error), *logs])) from error
    if status is None:
        return Exit.INTERRUPTED
    seconds = time.monotonic() - started
    found = list(batch.results())
    _show_some(console, found)
    _show_counts(console, status, seconds)
    return _verdict(console, keys, found)


def _show_some(console: Console, found: list[Result]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True, overflow="ellipsis", max_width=22)
    table.add_column("status", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=max(20, console.width - 48))
    for result in found[:: max(1, len(found) // _SHOWN)][:_SHOWN]:
        tokens = f"{result.usage.total_token_count:,}" if result.usage else "-"
        text = result.text or (result.error.message if result.error else "")
        table.add_row(escape(result.key), result.status, tokens, escape(" ".join(text.split())))
    console.print()
    console.print(table)


def _show_counts(console: Console, status: BatchStatus, seconds: float) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    for name, value in (
        ("requests", f"{status.total:,}"),
        ("succeeded", f"{status.succeeded:,}"),
        ("failed", f"{status.failed + status.expired + status.cancelled:,}"),
        ("provider jobs", f"{len(status.jobs):,}"),
        ("tokens", f"{status.usage.total_token_count:,}"),
        ("seconds", f"{seconds:.1f}"),
    ):
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print()


def _verdict(console: Console, keys: list[str], found: list[Result]) -> Exit:
    """Every key exactly once, and every one with an answer."""
    counts = Counter(result.key for result in found)
    problems = {
        "without a result": [key for key in keys if not counts[key]],
        "with more than one result": [key for key, count in counts.items() if count > 1],
        "that nobody asked for": sorted(counts.keys() - set(keys)),
        "that did not succeed": [result.key for result in found if result.status is not ResultStatus.SUCCEEDED],
    }
    for what, which in problems.items():
        if which:
            some = ", ".join(which[:5]) + (" ..." if len(which) > 5 else "")
            console.print(f"[red]{len(which):,} keys {what}:[/] {escape(some)}")
    if any(problems.values()):
        return Exit.FAILURES
    console.print(f"[green]every one of the {len(keys):,} requests has its result, checked key by key")
    return Exit.OK


def _linger(console: Console, stack: Stack) -> None:
    """Keeps everything up for whoever wants to look; Ctrl-C is then the usual end and no interruption."""
    console.print(f"Flower stays up at {stack.flower_url} until Ctrl-C")
    with suppress(KeyboardInterrupt):
        while all(child.running for child in stack.children):
            time.sleep(0.5)
