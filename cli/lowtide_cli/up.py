"""`lowtide up`: a whole Lowtide on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from lowtide_cli.errors import CommandError
from lowtide_cli.exits import Exit
from lowtide_cli.extras import need
from lowtide_cli.processes import Child, ending, free_port
from lowtide_cli.stack import Shape, Stack, generated_password

_LOOK_SECONDS = 0.2
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
"""A worker that ran for so long before it ended is restarted without a longer pause."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `lowtide up` is asked for; a port of 0 is the usual one if it is free, else any."""

    data_dir: Path | None = None
    emulator: bool | None = None
    """None: exactly when there is no API key."""
    flower: bool = True
    one_worker: bool = False
    threads: int = 8
    processes: int = 2
    redis_port: int = 0
    emulator_port: int = 0
    flower_port: int = 0


def up(options: Options) -> Exit:
    """Runs the stack until a signal ends it, or until a part that cannot be replaced dies."""
    console = Console(highlight=False)
    need("worker", "`lowtide up`")
    stack = Stack(_shape(options), exports=_own_spool(options.data_dir))
    # A polite kill or a closed terminal ends everything in order too.
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    code = Exit.OK
    try:
        with console.status("starting"):
            stack.start()
        _announce(console, stack)
        code = _supervise(console, stack)
    except KeyboardInterrupt:
        console.print("\nstopping: workers first, Redis last (Ctrl-C again to be quick)")
    finally:
        stack.stop()
        console.print("everything is stopped")
    return code


def _shape(options: Options) -> Shape:
    # Read as the workers will read them: from the environment and from `.env`.
    from lowtide import BatchQueue
    from lowtide_worker.settings import WorkerSettings

    settings = WorkerSettings()
    has_key = settings.google_api_key is not None and bool(settings.google_api_key.get_secret_value())
    use_emulator = not has_key if options.emulator is None else options.emulator
    if use_emulator:
        need("emulator", "The emulator, which stands in for Google where no GEMINI_API_KEY is set,")
    elif not has_key:
        raise CommandError("no API key: set GEMINI_API_KEY, or leave --no-emulator out")
    environment = dict(os.environ)
    if use_emulator:
        # The emulator's jobs take seconds; Google's take hours, and the usual pauses are made for those.
        for name, seconds in (("poll_first_seconds", "2"), ("poll_max_seconds", "10")):
            if name not in settings.model_fields_set:
                environment[f"LOWTIDE_{name.upper()}"] = seconds
    own_redis = "redis_url" not in settings.model_fields_set
    if not own_redis:
        BatchQueue(settings).list(page_size=1)  # tells at once, and clearly, where Redis does not answer
    auth = os.environ.get("LOWTIDE_FLOWER_BASIC_AUTH") or f"lowtide:{generated_password()}"
    if not all(auth.partition(":")):
        raise CommandError("LOWTIDE_FLOWER_BASIC_AUTH: expected user:password")
    return Shape(
        directory=(options.data_dir or Path.home() / ".lowtide").absolute(),
        environment=environment,
        redis=own_redis,
        redis_port=options.redis_port or free_port(6379),
        emulator=use_emulator,
        emulator_port=options.emulator_port or free_port(8080),
        flower=options.flower,
        flower_port=options.flower_port or free_port(5555),
        flower_auth=auth,
        one_worker=options.one_worker,
        threads=options.threads,
        processes=options.processes,
    )


def _own_spool(data_dir: Path | None) -> dict[str, str]:
    """A data folder of its own holds the spool too, unless the settings say where that is."""
    from lowtide import Settings

    if data_dir is None or "spool_url" in Settings().model_fields_set:
        return {}
    return {"LOWTIDE_SPOOL_URL": str(data_dir.absolute() / "spool")}


def _announce(console: Console, stack: Stack) -> None:
    from lowtide import Settings
    from lowtide.settings import without_password

    shape = stack.shape
    settings = Settings()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    kind = "embedded server" if stack.redis else "from your settings"
    url = stack.redis.url if stack.redis else without_password(settings.redis_url.get_secret_value())
    table.add_row("Redis", f"{url}  [dim]{kind}[/]")
    if stack.emulator_url:
        table.add_row("Provider", f"{stack.emulator_url}  [dim]emulator: answers are made up[/]")
    else:
        table.add_row("Provider", "Gemini, with your API key: [yellow]jobs cost money[/]")
    for worker in stack.workers:
        table.add_row(worker.name.capitalize(), f"{_served(worker)}  [dim]pid {worker.pid}[/]")
    if stack.flower_url:
        given = "LOWTIDE_FLOWER_BASIC_AUTH" in os.environ
        login = "[dim]login: LOWTIDE_FLOWER_BASIC_AUTH[/]" if given else f"[dim]login[/] {shape.flower_auth}"
        table.add_row("Flower", f"{stack.flower_url}  {login}")
    table.add_row("Spool", escape(stack.exports.get("LOWTIDE_SPOOL_URL", settings.spool_url)))
    table.add_row("Logs", escape(f"tail -F {shlex.quote(str(stack.logs))}/*.log"))
    console.print(Panel(table, title="Lowtide is up", title_align="left", border_style="cyan", expand=False))
    if stack.exports:
        console.print("In another terminal, first:")
        for name, value in stack.exports.items():
            # Not in the panel, and not wrapped: these lines are made to be copied.
            console.print(f"  export {name}={shlex.quote(value)}", soft_wrap=True, markup=False)
    console.print("For example:  lowtide submit requests.jsonl --model gemini-2.5-flash --wait", soft_wrap=True)
    console.print("Ctrl-C stops everything.")


def _served(worker: Child) -> str:
    words = worker.command
    queues, pool, concurrency = (words[words.index(option) + 1] for option in ("-Q", "-P", "-c"))
    return f"{queues.replace(',', ', ')} on {concurrency} {'threads' if pool == 'threads' else 'processes'}"


def _supervise(console: Console, stack: Stack) -> Exit:
    """Looks after the children; returns when one died that nothing can replace."""
    pauses = dict.fromkeys(stack.workers, _FIRST_PAUSE)
    started = dict.fromkeys(stack.workers, time.monotonic())
    due: dict[Child, float] = {}
    while True:
        now = time.monotonic()
        for worker in stack.workers:
            if worker in due:
                if now >= due[worker]:
                    del due[worker]
                    started[worker] = now
                    worker.start()
                    console.print(f"{worker.name} started again, pid {worker.pid}")
            elif not worker.running:
                if now - started[worker] > _STEADY_SECONDS:
                    pauses[worker] = _FIRST_PAUSE
                _report(worker, f"starting it again in {pauses[worker]:g} s")
                worker.kill()
                due[worker] = now + pauses[worker]
                pauses[worker] = min(pauses[worker] * 2, _LONGEST_PAUSE)
        for child in stack.children:
            if child not in stack.workers and not child.running:
                _report(child, "stopping")
                return Exit.ERROR
        time.sleep(_LOOK_SECONDS)


def _report(child: Child, consequence: str) -> None:
    error = Console(stderr=True, highlight=False)
    error.print(f"[red]{child.name} ended unexpectedly ({ending(child.returncode)}): {consequence}")
    for line in child.last_lines():
        error.print(f"  {child.name.lower()} | {line}", markup=False, soft_wrap=True)
    error.print(f"  all of it is in {child.log}", markup=False, soft_wrap=True)
