"""The course of the demo: it starts a stack in a temporary folder, runs the batches and stops everything."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from pathlib import Path

from rich.console import Console

from lowtide import Request
from lowtide_cli.commands.demo.batch import MODEL, demo_queue, show
from lowtide_cli.commands.demo.topics import EXAMPLES, questions
from lowtide_cli.extras import need
from lowtide_cli.local import SERVER_VARIABLE, Shape, Stack, generated_password, stop_on_signals
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.output import stdout

_SETTINGS = {
    "LOWTIDE_MAX_REQUESTS_PER_JOB": "60",
    "LOWTIDE_SEGMENT_ROWS": "30",
    "LOWTIDE_POLL_FIRST_SECONDS": "1",
    "LOWTIDE_POLL_MAX_SECONDS": "2",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.2",
}

SUGGESTED = """echo '{"key": "sky", "contents": "Why blue?"}' | lowtide submit - -m gemini-3.5-flash -o -"""


def demo(*, flower: bool, vertex: bool) -> Exit:
    """Runs the demo. Returns `OK` if every request has exactly one result.

    - `flower`: run Flower too, and keep everything running until Ctrl-C.
    - `vertex`: run the requests on Vertex AI, emulated, instead of the Gemini Developer API.
    """
    console = stdout()
    for extra in ("worker", "emulator", *["vertex-emulator"] * vertex, *["flower"] * flower):
        need(extra, "`lowtide demo`")
    stop_on_signals()
    _forget_settings()
    # A demo must never use Google. In an empty folder there is no `.env` with a key either.
    with tempfile.TemporaryDirectory(prefix="lowtide-demo-") as name, chdir(name):
        folder = Path(name)
        run, cloud, settings = run_topics, None, _SETTINGS
        if vertex:
            from lowtide_cli.commands.demo import vertex as on_vertex  # deferred: it needs Google's clients

            run, cloud = on_vertex.run, on_vertex.google_cloud(folder)
            settings = settings | on_vertex.SETTINGS
        os.environ.update(settings)
        shape = Shape(
            directory=folder,
            environment=dict(os.environ),
            cloud=cloud,
            emulator_options=("--pending-seconds", "1", "--running-seconds", "2"),
            flower=flower,
            flower_auth=f"demo:{generated_password()}",
        )
        stack = Stack(shape, exports={"LOWTIDE_SPOOL_URL": str(folder / "spool")})
        try:
            with console.status(f"starting Redis, the emulator{'s' if vertex else ''} and two workers"):
                stack.start()
            _show_processes(console, stack)
            code = run(console, stack)
            if code is Exit.OK:
                _show_next(console, vertex=vertex)
            if flower:
                _linger(console, stack)
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
        finally:
            with console.status("stopping"):
                stack.stop()
    if code is Exit.INTERRUPTED:
        console.print("\nstopped; nothing is left behind")
    return code


def _forget_settings() -> None:
    for variable in [name for name in os.environ if name.startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_", "FLOWER_"))]:
        if variable != SERVER_VARIABLE:
            del os.environ[variable]


def _show_processes(console: Console, stack: Stack) -> None:
    pids = ", ".join(f"{child.name} {child.pid}" for child in stack.children)
    console.print(f"processes: {pids}", style="dim")
    if stack.flower_url:
        console.print(f"Flower at {stack.flower_url}, login {stack.shape.flower_auth}")
    if not EXAMPLES.is_file():
        console.print("examples/topics.jsonl is missing: the demo uses only Python's own texts", style="dim")


def run_topics(console: Console, stack: Stack) -> Exit:
    """Runs one batch on the Gemini Developer API."""
    keys: list[str] = []

    def requests() -> Iterator[Request | Mapping[str, object]]:
        for request in questions():
            keys.append(request.key if isinstance(request, Request) else str(request["key"]))
            yield request

    batch = demo_queue(stack).submit(requests(), model=MODEL, labels={"demo": "topics"})
    console.print(f"submitted {len(keys):,} requests as batch {batch.id}")
    return show(console, stack, batch, keys)


def _show_next(console: Console, *, vertex: bool) -> None:
    """Shows the next commands to try."""
    console.print("\nNext, requests of your own, with the same emulator:")
    here = Path(sys.executable).parent
    if shutil.which("lowtide") != str(here / "lowtide") and (here / "activate").is_file():
        console.print(f"  . {here / 'activate'}", markup=False, soft_wrap=True)
    up = "LOWTIDE_PROVIDER=vertex lowtide up" if vertex else "lowtide up"
    console.print(f"  {up}   # leave it running; in a second terminal, run the line that it prints, and then:")
    console.print(f"  {SUGGESTED}", markup=False, soft_wrap=True)
    console.print("  lowtide list")


def _linger(console: Console, stack: Stack) -> None:
    """Keeps everything running until Ctrl-C, which is then the normal end and not an interruption."""
    console.print(f"Flower keeps running at {stack.flower_url} until Ctrl-C")
    with suppress(KeyboardInterrupt):
        while all(child.running for child in stack.children):
            time.sleep(0.5)
