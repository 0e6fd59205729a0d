"""`lowtide up`: runs a whole Lowtide on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from lowtide.text import on_one_line
from lowtide_cli.commands.demo import SUGGESTED
from lowtide_cli.extras import installed, need
from lowtide_cli.local import (
    LOGIN_VARIABLE,
    PAGES,
    Child,
    Shape,
    Stack,
    check_unused,
    ending,
    free_port,
    given_login,
    is_free,
    kept_login,
    last_lines,
)
from lowtide_cli.terminal import CommandError, Exit, report
from lowtide_cli.terminal.output import stderr, stdout

if TYPE_CHECKING:
    from lowtide_cli.local.google_cloud import GoogleCloud
    from lowtide_worker.settings import WorkerSettings

_CHECK_SECONDS = 0.2
_CLOUD_CHECK_SECONDS = 2.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_SHOWN_WORKERS = 10
_STEADY_SECONDS = 60.0
"""A worker that ran for this long before it ended is restarted after the first pause."""
_VERTEX_SETTINGS = (
    "provider",
    "google_cloud_project",
    "google_cloud_location",
    "google_vertex_base_url",
    "vertex_credentials",
    "vertex_locations",
    "vertex_storage",
    "vertex_dataset",
)
_LOCAL = "lowtide-local"
"""The project and the bucket if the settings name none."""
_EXPORTS = (
    "LOWTIDE_REDIS_URL",
    "LOWTIDE_SPOOL_URL",
    "GOOGLE_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
    "STORAGE_EMULATOR_HOST",
    "BIGQUERY_EMULATOR_HOST",
)
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_GOOGLE_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `lowtide up`. A port of 0 is the usual one if that is free, else any free one."""

    data_dir: Path | None = None
    emulator: bool | None = None
    """None: use it only if no access to Google is configured."""
    flower: bool | None = None
    """None: run it if its extra is installed."""
    one_worker: bool = False
    threads: int = 8
    processes: int = 2
    redis_port: int = 0
    emulator_port: int = 0
    storage_port: int = 0
    bigquery_port: int = 0
    flower_port: int = 0


def up(options: Options) -> Exit:
    """Runs the stack until a signal ends it, or until a part ends that cannot be restarted."""
    console = stdout()
    need("worker", "`lowtide up`")
    if options.flower:
        need("flower", "`lowtide up --flower`")
    # The workers read the same settings, from the environment and from `.env`.
    from lowtide_worker.settings import WorkerSettings

    settings = WorkerSettings()
    shape = _shape(options, settings)
    exports = _own_spool(options.data_dir) | _vertex_exports(settings, emulator=shape.emulator)
    stack = Stack(shape, exports=exports)
    # SIGTERM and a closed terminal stop everything in order too.
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, signal.default_int_handler)
    code = Exit.OK
    try:
        with console.status("starting"):
            stack.start()
        _announce(console, stack, settings)
        code = _supervise(console, stack)
    except KeyboardInterrupt:
        console.print("\nstopping: workers first, Redis last (press Ctrl-C again to kill them)")
    except CommandError as error:
        # The reason comes before the news that everything is stopped.
        report(str(error))
        code = Exit.ERROR
    finally:
        stack.stop()
        console.print("everything is stopped")
    return code


def _shape(options: Options, settings: WorkerSettings) -> Shape:
    from lowtide import BatchQueue, StoreUnavailable

    use_emulator = _without_google(options, settings)
    environment = dict(os.environ)
    own_redis = "redis_url" not in settings.model_fields_set
    if use_emulator:
        environment |= _short_pauses(settings)
        if own_redis:
            environment |= _short_waits_for_jobs(settings)
    if not own_redis:
        try:
            BatchQueue(settings).list(page_size=1)  # fails at once, with a clear message, if Redis does not answer
        except StoreUnavailable as error:
            raise CommandError(
                f"LOWTIDE_REDIS_URL is set: unset it, or start that server ({str(error).partition(': start it')[0]}). "
                "In a shell with the export lines of an earlier run: unset "
                f"{' '.join(filter(os.environ.get, _EXPORTS))}"
            ) from error
        _tell_of_workers(settings)
    directory = (options.data_dir or _home()).absolute()
    if own_redis:
        check_unused(directory / "redis")  # before the lines about ports, which the other server has
    flower = installed("flower") if options.flower is None else options.flower
    return Shape(
        directory=directory,
        environment=environment,
        redis=own_redis,
        redis_port=_port(options, "redis", 6379) if own_redis else 0,
        cloud=_google_cloud(options, directory, settings) if use_emulator and _on_vertex(settings) else None,
        emulator=use_emulator,
        emulator_port=_port(options, "emulator", 8080) if use_emulator else 0,
        flower=flower,
        flower_port=_port(options, "flower", 5555) if flower else 0,
        flower_auth=(given_login() or kept_login(directory / "flower")) if flower else "",
        one_worker=options.one_worker,
        threads=options.threads,
        processes=options.processes,
    )


def _tell_of_workers(settings: WorkerSettings) -> None:
    """Says which workers use the Redis of the settings already: those of this run join them."""
    from lowtide_cli.workers import announced_workers  # deferred: importing Celery takes time

    if names := announced_workers(settings):
        some = ", ".join(names[:_SHOWN_WORKERS]) + (" ..." if len(names) > _SHOWN_WORKERS else "")
        said = f"workers already run with this LOWTIDE_REDIS_URL: {on_one_line(some)}; those of this run join them"
        stderr().print(said, markup=False, soft_wrap=True)


def _port(options: Options, server: str, usual: int) -> int:
    """Returns the port of a server. Only the usual one may be replaced by a free one, and a line says so.

    Raises `CommandError` if the port that the user chose is taken.
    """
    if wanted := getattr(options, f"{server}_port"):
        if not is_free(wanted):
            raise CommandError(f"--{server}-port: port {wanted} is in use; choose another one, or leave the option out")
        return int(wanted)
    port = free_port(usual)
    if port != usual:
        stderr().print(f"port {usual} is in use: {server} gets port {port}; choose one with --{server}-port")
    return port


def _short_pauses(settings: WorkerSettings) -> dict[str, str]:
    """Returns pauses between polls that suit the emulator, whose jobs take seconds, unless the user has set them."""
    given = settings.model_fields_set
    first, longest = settings.poll_first_seconds, settings.poll_max_seconds
    if "poll_max_seconds" not in given:
        longest = 10.0 if "poll_first_seconds" not in given else max(10.0, first)
    if "poll_first_seconds" not in given:
        first = min(2.0, longest)
    return {"LOWTIDE_POLL_FIRST_SECONDS": f"{first:g}", "LOWTIDE_POLL_MAX_SECONDS": f"{longest:g}"}


def _short_waits_for_jobs(settings: WorkerSettings) -> dict[str, str]:
    """Returns waits for jobs that the provider does not know, unless the user has set them.

    The emulator forgets its jobs when it stops, and knows each that was made since. All jobs in this Redis are its own.
    """
    waits = {"missing_job_seconds", "create_settle_seconds"} - settings.model_fields_set
    return {f"LOWTIDE_{name.upper()}": "5" for name in waits}


def _home() -> Path:
    try:
        return Path.home() / ".lowtide"
    except RuntimeError:
        raise CommandError("there is no home directory for the data: set HOME or --data-dir") from None


def _without_google(options: Options, settings: WorkerSettings) -> bool:
    """Returns whether to use the emulator. Raises `CommandError` if that choice cannot work."""
    key = settings.google_api_key.get_secret_value() if settings.google_api_key else None
    name, needed = "the Gemini Developer API", {"GEMINI_API_KEY": key}
    if settings.provider == "vertex":
        name = "Vertex AI"
        project, storage = settings.google_cloud_project, settings.vertex_storage
        needed = {"GOOGLE_CLOUD_PROJECT": project, "LOWTIDE_VERTEX_STORAGE": storage}
    missing = [variable for variable, value in needed.items() if not value]
    if len(missing) == len(needed) if options.emulator is None else options.emulator:
        need("emulator", f"The emulator, which stands in for Google without {' and '.join(needed)},")
        if _on_vertex(settings):
            need("vertex-emulator", "The emulator of Vertex AI (LOWTIDE_PROVIDER, LOWTIDE_VERTEX_STORAGE)")
        return True
    if missing:
        raise CommandError(f"{name} needs {' and '.join(missing)}; or run `lowtide up --emulator`")
    if _on_vertex(settings):
        need("vertex", "Vertex AI")
    return False


def _on_vertex(settings: WorkerSettings) -> bool:
    """Returns whether Vertex AI is used, even beside the Developer API. All its storage must then be emulated too."""
    return settings.provider == "vertex" or settings.vertex_storage is not None


def _google_cloud(options: Options, directory: Path, settings: WorkerSettings) -> GoogleCloud:
    """Returns Cloud Storage and BigQuery with the places that the settings name, or with local defaults."""
    from lowtide_cli.local.google_cloud import GoogleCloud, Places

    project = settings.google_cloud_project or _LOCAL
    places = Places(
        project=project,
        storage=settings.vertex_storage or f"gs://{_LOCAL}/lowtide",
        dataset=settings.vertex_dataset or f"bq://{project}.lowtide",
        locations=settings.vertex_locations or [f"gs://{_LOCAL}/data", f"bq://{project}.data"],
    )
    return GoogleCloud(
        directory / "cloud",
        places,
        storage_port=_port(options, "storage", 4443),
        bigquery_port=_port(options, "bigquery", 9050),
    )


def _vertex_exports(settings: WorkerSettings, *, emulator: bool) -> dict[str, str]:
    """Returns the environment that another terminal needs to use the same places and the same provider."""
    if not _on_vertex(settings):
        return {}
    found = {} if emulator else {name: os.environ[name] for name in _GOOGLE_VARIABLES if name in os.environ}
    for name in _VERTEX_SETTINGS:
        if name not in settings.model_fields_set:
            continue
        value = getattr(settings, name)
        alias = type(settings).model_fields[name].validation_alias
        variable = alias if isinstance(alias, str) else f"LOWTIDE_{name.upper()}"
        found[variable] = json.dumps(value) if isinstance(value, list) else str(value)
    return found


def _own_spool(data_dir: Path | None) -> dict[str, str]:
    """Returns the variable for the spool of this run, unless it is set already. `--data-dir` holds the spool too."""
    from lowtide import Settings

    settings = Settings()
    if "spool_url" in settings.model_fields_set:
        return {}
    return {"LOWTIDE_SPOOL_URL": str(data_dir.absolute() / "spool") if data_dir else settings.spool_url}


def _announce(console: Console, stack: Stack, settings: WorkerSettings) -> None:
    from lowtide.settings import without_password

    shape = stack.shape
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    kind = "embedded server" if stack.redis else "from your settings"
    url = without_password(stack.redis.url if stack.redis else settings.redis_url.get_secret_value())
    table.add_row("Redis", f"{escape(url)}  [dim]{kind}[/]")
    table.add_row("Provider", _provider(stack, settings))
    if shape.cloud:
        table.add_row("Cloud Storage", f"{shape.cloud.storage_url}  [dim]stand-in[/]")
        table.add_row("BigQuery", f"{shape.cloud.bigquery_url}  [dim]stand-in, in memory[/]")
    for worker in stack.workers:
        table.add_row(worker.name.capitalize(), f"{_served(worker)}  [dim]pid {worker.pid}[/]")
    if stack.flower_url:
        login = f"[dim]login: {LOGIN_VARIABLE}[/]" if given_login() else f"[dim]login[/] {shape.flower_auth}"
        table.add_row("Flower", f"{stack.flower_url}  {login}")
        table.add_row("Batches", f"{stack.flower_url}{PAGES}")
    table.add_row("Spool", escape(without_password(stack.exports.get("LOWTIDE_SPOOL_URL", settings.spool_url))))
    table.add_row("Logs", escape(f"tail -F {shlex.quote(str(stack.logs))}/*.log"))
    console.print(Panel(table, title="Lowtide is up", title_align="left", border_style="cyan", expand=False))
    if stack.exports:
        console.print("In another terminal, first:")
        for name, value in stack.exports.items():
            # Outside the panel and not wrapped, so that the lines can be copied.
            console.print(f"  export {name}={shlex.quote(value)}", soft_wrap=True, markup=False)
    if settings.webhook_url and stack.emulator_url:
        console.print("There, to receive the emulator's webhooks:")
        command = hooks_command(settings.webhook_url, stack.emulator_url)
        console.print(f"  {command}", soft_wrap=True, markup=False)
    console.print(f"For example:  {SUGGESTED}", soft_wrap=True, markup=False)
    console.print("Ctrl-C stops everything.")


def hooks_command(webhook_url: str, emulator_url: str) -> str:
    """Returns the command that receives the events of the emulator at `webhook_url`, as a shell takes it."""
    given = {"LOWTIDE_WEBHOOK_URL": webhook_url, "LOWTIDE_HOOKS_KEYS_URL": f"{emulator_url}/.well-known/jwks.json"}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    port = urlsplit(webhook_url).port
    return f"{variables} lowtide hooks serve" + (f" --port {port}" if port else "")


def _provider(stack: Stack, settings: WorkerSettings) -> str:
    vertex = settings.provider == "vertex"
    if stack.emulator_url:
        return f"{stack.emulator_url}  [dim]emulator{' of Vertex AI' if vertex else ''}: answers are made up[/]"
    if vertex:
        name = f"Vertex AI, project {settings.google_cloud_project} in {settings.google_cloud_location}"
        elsewhere = settings.google_vertex_base_url
    else:
        name, elsewhere = "Gemini, with your API key", settings.google_gemini_base_url
        if elsewhere and urlsplit(elsewhere).hostname in _THIS_MACHINE:
            return f"{escape(elsewhere)}  [dim]GOOGLE_GEMINI_BASE_URL, on this machine[/]"
    return escape(name) + (f", at {escape(elsewhere)}" if elsewhere else ": [yellow]jobs cost money[/]")


def _served(worker: Child) -> str:
    words = worker.command
    queues, pool, concurrency = (words[words.index(option) + 1] for option in ("-Q", "-P", "-c"))
    return f"{queues.replace(',', ', ')} on {concurrency} {'threads' if pool == 'threads' else 'processes'}"


def _supervise(console: Console, stack: Stack) -> Exit:
    """Watches the children and restarts workers. Returns if another child ends, because it cannot be restarted."""
    pauses = dict.fromkeys(stack.workers, _FIRST_PAUSE)
    started = dict.fromkeys(stack.workers, time.monotonic())
    due: dict[Child, float] = {}
    cloud_due = time.monotonic()
    while True:
        now = time.monotonic()
        for worker in stack.workers:
            if worker in due:
                if now >= due[worker]:
                    del due[worker]
                    started[worker] = now
                    worker.start()
                    console.print(f"{worker.name} restarted, pid {worker.pid}")
            elif not worker.running:
                if now - started[worker] > _STEADY_SECONDS:
                    pauses[worker] = _FIRST_PAUSE
                _report(worker, f"restarting it in {pauses[worker]:g} s")
                worker.kill()
                due[worker] = now + pauses[worker]
                pauses[worker] = min(pauses[worker] * 2, _LONGEST_PAUSE)
        for child in stack.children:
            if child not in stack.workers and not child.running:
                _report(child, "stopping")
                return Exit.ERROR
        if stack.shape.cloud and now >= cloud_due:
            for name, log in stack.shape.cloud.ended():
                _print_problem(f"{name} ended unexpectedly: stopping", name, log)
                return Exit.ERROR
            cloud_due = now + _CLOUD_CHECK_SECONDS
        time.sleep(_CHECK_SECONDS)


def _report(child: Child, consequence: str) -> None:
    how = ending(child.returncode)
    _print_problem(f"{child.name} ended unexpectedly ({how}): {consequence}", child.name, child.log)


def _print_problem(problem: str, name: str, log: Path) -> None:
    error = stderr()
    error.print(f"[red]{problem}")
    for line in last_lines(log):
        error.print(f"  {name.lower()} | {line}", markup=False, soft_wrap=True)
    error.print(f"  the full log is {log}", markup=False, soft_wrap=True)
