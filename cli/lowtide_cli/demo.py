"""`lowtide demo`: a few hundred real requests through real processes, each result checked by its key."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, suppress
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console

from lowtide import Batch, BatchQueue, Request, Settings, WaitTimeout
from lowtide_cli.demo_report import show_counts, show_some, verdict
from lowtide_cli.errors import CommandError
from lowtide_cli.exits import Exit
from lowtide_cli.extras import need
from lowtide_cli.output import stdout
from lowtide_cli.stack import Shape, Stack, generated_password
from lowtide_cli.topics import EXAMPLES, questions
from lowtide_cli.watch import follow

MODEL = "gemini-2.5-flash"
_LONGEST_SECONDS = 60.0
_SETTINGS = {
    "LOWTIDE_MAX_REQUESTS_PER_JOB": "60",
    "LOWTIDE_SEGMENT_ROWS": "30",
    "LOWTIDE_POLL_FIRST_SECONDS": "1",
    "LOWTIDE_POLL_MAX_SECONDS": "2",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.2",
}


def demo(*, flower: bool, vertex: bool) -> Exit:
    """Runs it; any code but `OK` means that a request came back without its result, or not at all."""
    console = stdout()
    for extra in ("worker", "emulator", *(("vertex-emulator",) if vertex else ())):
        need(extra, "`lowtide demo`")
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    _forget_settings()
    # In a folder of its own no `.env` is found either: a demo must never reach Google.
    with tempfile.TemporaryDirectory(prefix="lowtide-demo-") as name, chdir(name), ExitStack() as servers:
        folder = Path(name)
        exports = {"LOWTIDE_SPOOL_URL": str(folder / "spool")}
        if vertex:
            from lowtide_cli.demo_vertex import google_cloud, run  # deferred: only this one needs Google's clients

            with console.status("starting stand-ins for Cloud Storage and BigQuery"):
                exports |= servers.enter_context(google_cloud(folder))
        else:
            run = run_topics
        shape = Shape(
            directory=folder,
            environment={**os.environ, **_SETTINGS},
            emulator_options=("--pending-seconds", "1", "--running-seconds", "2"),
            flower=flower,
            flower_auth=f"demo:{generated_password()}",
        )
        stack = Stack(shape, exports=exports)
        try:
            with console.status("starting Redis, the emulator and two workers"):
                stack.start()
            _show_processes(console, stack)
            code = run(console, stack)
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


def _show_processes(console: Console, stack: Stack) -> None:
    pids = ", ".join(f"{child.name} {child.pid}" for child in stack.children)
    console.print(f"processes: {pids}", style="dim")
    if stack.flower_url:
        console.print(f"Flower at {stack.flower_url}, login {stack.shape.flower_auth}")
    if not EXAMPLES.is_file():
        console.print("examples/topics.jsonl is not here: Python's own texts alone will do", style="dim")


def run_topics(console: Console, stack: Stack) -> Exit:
    """One batch on the Developer API."""
    keys: list[str] = []

    def requests() -> Iterator[Request | Mapping[str, object]]:
        for request in questions():
            keys.append(request.key if isinstance(request, Request) else str(request["key"]))
            yield request

    batch = demo_queue(stack).submit(requests(), model=MODEL, labels={"demo": "topics"})
    console.print(f"submitted {len(keys):,} requests as batch {batch.id}")
    return show(console, stack, batch, keys)


def demo_queue(stack: Stack, **settings: Any) -> BatchQueue:
    """A producer for the stack."""
    redis_url, spool_url = stack.exports["LOWTIDE_REDIS_URL"], stack.exports["LOWTIDE_SPOOL_URL"]
    return BatchQueue(Settings(redis_url=SecretStr(redis_url), spool_url=spool_url, **settings))


def show(console: Console, stack: Stack, batch: Batch, keys: list[str]) -> Exit:
    """Follows a batch to its end, shows what came of it and checks it key by key."""
    started = time.monotonic()
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
    show_some(console, found)
    show_counts(console, status, seconds)
    return verdict(console, keys, found)


def _linger(console: Console, stack: Stack) -> None:
    """Keeps everything up for whoever wants to look; Ctrl-C is then the usual end and no interruption."""
    console.print(f"Flower stays up at {stack.flower_url} until Ctrl-C")
    with suppress(KeyboardInterrupt):
        while all(child.running for child in stack.children):
            time.sleep(0.5)
