"""The report: runs every check and prints the findings."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowtide import InvalidSettings, Settings
from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.commands.doctor.handlers import check_handlers
from lowtide_cli.commands.doctor.provider import check_provider
from lowtide_cli.commands.doctor.spool import check_installation, check_spool
from lowtide_cli.commands.doctor.store import check_redis
from lowtide_cli.commands.doctor.workers import check_workers, is_served
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.output import print_json, stdout

_COLOURS = {Health.OK: "green", Health.WARN: "yellow", Health.FAIL: "red"}


def doctor(*, as_json: bool) -> Exit:
    """Runs every check and prints the findings."""
    findings = _findings()
    failed = any(finding.health is Health.FAIL for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [finding.data() for finding in findings]})
    else:
        _show(stdout(), findings)
    return Exit.ERROR if failed else Exit.OK


def _findings() -> list[Finding]:
    try:
        settings = Settings()
    except InvalidSettings as error:
        return [Finding("Settings", Health.FAIL, str(error), "correct it here, in .env, and on every host")]
    findings = check_redis(settings)
    reachable = findings[0].health is not Health.FAIL
    spool = check_spool(settings)
    findings.append(spool)
    if reachable and spool.health is not Health.FAIL:
        findings.append(check_installation(settings))
    findings += check_provider(served=reachable and is_served(settings))
    if reachable:
        workers, served = check_workers(settings)
        findings += workers
        findings += check_handlers(settings, served)
    return findings


def _show(console: Console, findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        advice = f"\n[dim]→[/] {escape(finding.advice)}" if finding.advice else ""
        word = f"[{_COLOURS[finding.health]}]{finding.health}[/]"
        table.add_row(word, finding.check, escape(finding.seen) + advice)
    console.print(table)
