"""`lowtide doctor`: looks at everything a batch needs on its way, and says what to mend."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowtide import LowtideError, Settings, SpoolError, StoreUnavailable, UnsupportedServer
from lowtide.protocol import Queue, keys
from lowtide.settings import without_password
from lowtide.spool import Spool
from lowtide.states import ProviderName
from lowtide.store import connect, redis_errors, require_server
from lowtide_cli.doctor_handlers import check_handlers
from lowtide_cli.exits import Exit
from lowtide_cli.extras import installed
from lowtide_cli.findings import Finding, Verdict
from lowtide_cli.installation import check as check_installation
from lowtide_cli.output import print_json, stdout
from lowtide_cli.workers import worker_queues

if TYPE_CHECKING:
    from lowtide_worker.providers import ProviderError
    from lowtide_worker.settings import WorkerSettings

_SKEW_SECONDS = 2.0
_PROVIDER_SECONDS = 10.0


def doctor(*, as_json: bool) -> Exit:
    """Runs every check and prints what it saw."""
    settings = Settings()
    findings = _redis(settings)
    reachable = findings[0].verdict is not Verdict.FAIL
    spool = _spool(settings)
    findings += spool
    if reachable and spool[0].verdict is not Verdict.FAIL:
        findings.append(check_installation(settings))
    findings += _provider()
    if reachable:
        findings += _workers(settings)
        findings += check_handlers(settings)
    failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [finding.__dict__ for finding in findings]})
    else:
        _show(stdout(), findings)
    return Exit.ERROR if failed else Exit.OK


def _show(console: Console, findings: list[Finding]) -> None:
    colour = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        advice = f"\n[dim]→[/] {escape(finding.advice)}" if finding.advice else ""
        word = f"[{colour[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(word, finding.check, escape(finding.seen) + advice)
    console.print(table)


def _redis(settings: Settings) -> list[Finding]:
    url = settings.redis_url.get_secret_value()
    client = connect(settings)
    try:
        with redis_errors(url):
            before = time.time()
            seconds, micros = client.time()
            skew = seconds + micros / 1e6 - (before + time.time()) / 2
            require_server(client)
            info = client.info()
            dead = client.llen(keys.DEAD_LETTERS)
    except (StoreUnavailable, UnsupportedServer) as error:
        return [Finding("Redis", Verdict.FAIL, str(error))]
    finally:
        client.close()
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return [
        Finding("Redis", Verdict.OK, f"{server} at {without_password(url)}"),
        _eviction(str(info.get("maxmemory_policy", "unknown"))),
        _append_only(on=bool(info.get("aof_enabled"))),
        _skew(skew),
        _dead_letters(dead),
    ]


def _eviction(policy: str) -> Finding:
    if policy == "noeviction":
        return Finding("Eviction", Verdict.OK, policy)
    return Finding(
        "Eviction", Verdict.FAIL, f"maxmemory-policy is {policy}: Redis may drop batches when memory is short",
        "CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
    )  # fmt: skip


def _append_only(*, on: bool) -> Finding:
    if on:
        return Finding("Append-only", Verdict.OK, "on")
    return Finding(
        "Append-only", Verdict.WARN, "off: a restart of Redis forgets every batch since its last snapshot",
        "CONFIG SET appendonly yes, and the same in its configuration",
    )  # fmt: skip


def _skew(skew: float) -> Finding:
    seen = f"{abs(skew) * 1000:,.0f} ms {'ahead of' if skew < 0 else 'behind'} Redis"
    if abs(skew) < _SKEW_SECONDS:
        return Finding("Clock", Verdict.OK, seen)
    return Finding(
        "Clock", Verdict.WARN, f"{seen}: ages and times shown here are wrong by as much",
        "synchronise the clocks of both machines (NTP)",
    )  # fmt: skip


def _dead_letters(count: int) -> Finding:
    if not count:
        return Finding("Dead letters", Verdict.OK, "none")
    return Finding(
        "Dead letters", Verdict.WARN, f"{count:,} {'message' if count == 1 else 'messages'} that nobody could handle",
        "lowtide dead-letters list",
    )  # fmt: skip


def _spool(settings: Settings) -> list[Finding]:
    name = f"doctor-{secrets.token_hex(8)}"
    shown = without_password(settings.spool_url)
    try:
        spool = Spool(settings.spool_url)
        with spool.write(name) as file:
            file.write(b"ebb")
        whole = spool.read(name) == b"ebb"
        spool.delete(name)
    except (SpoolError, ImportError, ValueError) as error:
        advice = "make it writable, or set LOWTIDE_SPOOL_URL; an object store needs its library and its credentials"
        return [Finding("Spool", Verdict.FAIL, f"{shown}: {without_password(str(error))}", advice)]
    if not whole:
        return [Finding("Spool", Verdict.FAIL, f"{shown} gives back other bytes than it was given")]
    if spool.is_open_to_others:
        advice = "chmod o-rwx on it; what Lowtide makes below is private, or its group's where the root has group bits"
        return [Finding("Spool", Verdict.WARN, f"{shown} is writable, and open to every user of this machine", advice)]
    return [Finding("Spool", Verdict.OK, f"{shown} is writable")]


def _provider() -> list[Finding]:
    if not installed("worker"):
        advice = 'on the workers\' hosts: pip install "lowtide[worker]"'
        return [Finding("Provider", Verdict.WARN, "not asked: this host has no worker installed", advice)]
    from lowtide_cli.doctor_vertex import check_vertex
    from lowtide_worker.settings import WorkerSettings

    known = WorkerSettings()
    # A worker is patient; somebody who looks at a terminal is not.
    patience = min(known.provider_timeout_seconds, _PROVIDER_SECONDS)
    hurried = known.model_copy(update={"provider_timeout_seconds": patience})
    return [_jobs(hurried), *check_vertex(hurried)]


def _jobs(settings: WorkerSettings) -> Finding:
    """Whether the provider lists its jobs."""
    from lowtide_worker.providers import ProviderError
    from lowtide_worker.runtime import Runtime

    vertex = settings.provider is ProviderName.VERTEX
    endpoint = settings.google_vertex_base_url if vertex else settings.google_gemini_base_url
    name = f"{settings.provider} at {endpoint or 'Google'}"
    try:
        jobs, more = Runtime(settings).provider(settings.provider).jobs()
    except ImportError as error:
        return Finding("Provider", Verdict.FAIL, str(error), 'pip install "lowtide[worker,vertex]"')
    except LowtideError as error:  # a file of credentials that cannot be read
        return Finding("Provider", Verdict.FAIL, str(error))
    except ProviderError as error:
        advice = _about_vertex(error) if vertex else _about_gemini(error, has_key=settings.google_api_key is not None)
        return Finding("Provider", Verdict.FAIL, f"{name}: {error}", advice)
    count = f"{len(jobs):,}{' or more' if more else ''} {'job' if len(jobs) == 1 else 'jobs'}"
    return Finding("Provider", Verdict.OK, f"{name} lists {count}")


def _about_gemini(error: ProviderError, *, has_key: bool) -> str:
    from lowtide_worker.providers import Unavailable

    if isinstance(error, Unavailable) and has_key:
        return "check the network and GOOGLE_GEMINI_BASE_URL"
    return "set GEMINI_API_KEY (or GOOGLE_API_KEY) to a key that is valid there"


def _about_vertex(error: ProviderError) -> str:
    from lowtide_worker.providers import Unavailable

    if error.error.reason == "NOT_CONFIGURED":
        return "see docs/how-to.md, Use Vertex AI"
    if isinstance(error, Unavailable):
        return "check the network and GOOGLE_VERTEX_BASE_URL"
    if error.http_status == 403:
        return "the project needs aiplatform.googleapis.com enabled, and the workers' account Vertex AI User in it"
    return "gcloud auth application-default login, or LOWTIDE_VERTEX_CREDENTIALS; see docs/how-to.md"


def _workers(settings: Settings) -> list[Finding]:
    start = "start one: celery -A lowtide_worker worker -Q {} (or `lowtide up`)"
    try:
        alive = worker_queues(settings.redis_url.get_secret_value())
    except (LowtideError, redis.RedisError, OSError) as error:
        return [Finding("Workers", Verdict.FAIL, f"the broker cannot be asked: {error}")]
    if not alive:
        advice = start.format(",".join(Queue))
        return [Finding("Workers", Verdict.FAIL, "none answers: batches are accepted, and wait", advice)]
    findings = [
        Finding("Worker", Verdict.OK, f"{name} serves {', '.join(queues)}") for name, queues in alive.items()
    ]  # fmt: skip
    served = {queue for queues in alive.values() for queue in queues}
    findings += [
        Finding("Workers", Verdict.FAIL, f"none serves {queue}", start.format(queue))
        for queue in Queue
        if queue not in served
    ]
    return findings
