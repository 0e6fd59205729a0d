"""The shape of the stack: the parts that the options, the settings and the environment ask for."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lowtide.text import on_one_line
from lowtide_cli.commands.up.exports import on_vertex
from lowtide_cli.commands.up.options import Options
from lowtide_cli.commands.up.ports import chosen_port
from lowtide_cli.commands.up.running import running
from lowtide_cli.extras import installed, need
from lowtide_cli.local import Shape, check_unused, given_login, kept_login
from lowtide_cli.terminal import CommandError
from lowtide_cli.terminal.output import stderr

if TYPE_CHECKING:
    from lowtide_cli.local.google_cloud import GoogleCloud
    from lowtide_worker.settings import WorkerSettings

_SHOWN_WORKERS = 10
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
    "LOWTIDE_WEBHOOK_URL",
    "LOWTIDE_HOOKS_KEYS_URL",
    "LOWTIDE_POLL_FIRST_SECONDS",
    "LOWTIDE_POLL_MAX_SECONDS",
    "LOWTIDE_MISSING_JOB_SECONDS",
    "LOWTIDE_CREATE_SETTLE_SECONDS",
)


def shape_of(options: Options, settings: WorkerSettings) -> Shape:
    """Returns what to run. Raises `CommandError` if the options and the settings cannot work together."""
    from lowtide import BatchQueue, StoreUnavailable

    use_emulator = _without_google(options, settings)
    own_redis = "redis_url" not in settings.model_fields_set
    if not own_redis:
        try:
            BatchQueue(settings).list(page_size=1)  # fails at once, with a clear message, if Redis does not answer
        except StoreUnavailable as error:
            raise CommandError(
                f"LOWTIDE_REDIS_URL is set: unset it, or start that server ({str(error).partition(': start it')[0]}). "
                f"In a shell with the environment of an earlier run: {_unset()}"
            ) from error
        _check_not_joined(settings)
        tell_of_workers(settings)
    directory = (options.data_dir or _home()).absolute()
    if own_redis:
        _check_unused(directory)  # before the lines about ports, which the other server has
    flower = installed("flower") if options.flower is None else options.flower
    return Shape(
        directory=directory,
        environment=dict(os.environ),
        redis=own_redis,
        redis_port=chosen_port(options, "redis", 6379) if own_redis else 0,
        cloud=_google_cloud(options, directory, settings) if use_emulator and on_vertex(settings) else None,
        emulator=use_emulator,
        emulator_port=chosen_port(options, "emulator", 8080) if use_emulator else 0,
        flower=flower,
        flower_port=chosen_port(options, "flower", 5555) if flower else 0,
        flower_auth=(given_login() or kept_login(directory / "flower")) if flower else "",
        one_worker=options.one_worker,
        threads=options.threads,
        processes=options.processes,
    )


def _unset() -> str:
    """The command by which a shell forgets the environment of a `lowtide up`."""
    return f"unset {' '.join(filter(os.environ.get, _EXPORTS))}"


def _check_not_joined(settings: WorkerSettings) -> None:
    """Raises `CommandError` if the Redis of the settings is the embedded one of a `lowtide up` that runs here.

    Its workers would have the same names as those of this run, and everything is there already.
    """
    from redis import RedisError  # deferred: `lowtide --help` must be quick

    from lowtide.store import connect

    found = ""
    # Not every user of a Redis may read its configuration, and that of another machine concerns no folder here.
    with suppress(RedisError), closing(connect(settings)) as client:
        if folder := client.config_get("dir").get("dir"):
            found = running(Path(folder).parent)
    if found:
        raise CommandError(
            f"{found}. This shell has its environment, so other commands work here as they are. For another "
            f"`lowtide up`, use a new terminal and a --data-dir of its own, or first {_unset()}"
        )


def tell_of_workers(settings: WorkerSettings) -> None:
    """Says which workers use the Redis of the settings already: those of this run join them."""
    from lowtide_cli.workers import announced_workers  # deferred: importing Celery takes time

    if names := announced_workers(settings):
        some = ", ".join(names[:_SHOWN_WORKERS]) + (" ..." if len(names) > _SHOWN_WORKERS else "")
        said = f"workers already run with this LOWTIDE_REDIS_URL: {on_one_line(some)}; those of this run join them"
        stderr().print(said, markup=False, soft_wrap=True)


def _check_unused(directory: Path) -> None:
    try:
        check_unused(directory / "redis")
    except CommandError as error:
        found = running(directory)
        raise CommandError(f"{found}, or choose another folder with --data-dir" if found else str(error)) from None


def short_waits(settings: WorkerSettings, *, own_redis: bool) -> dict[str, str]:
    """Returns the settings of workers that suit the emulator, unless the user has set them."""
    return short_pauses(settings) | (_short_waits_for_jobs(settings) if own_redis else {})


def short_pauses(settings: WorkerSettings) -> dict[str, str]:
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
    waits = ("missing_job_seconds", "create_settle_seconds")
    return {f"LOWTIDE_{name.upper()}": "5" for name in waits if name not in settings.model_fields_set}


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
        if on_vertex(settings):
            need("vertex-emulator", "The emulator of Vertex AI (LOWTIDE_PROVIDER, LOWTIDE_VERTEX_STORAGE)")
        return True
    if missing:
        raise CommandError(f"{name} needs {' and '.join(missing)}; or run `lowtide up --emulator`")
    if on_vertex(settings):
        need("vertex", "Vertex AI")
    return False


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
        storage_port=chosen_port(options, "storage", 4443),
        bigquery_port=chosen_port(options, "bigquery", 9050),
    )
