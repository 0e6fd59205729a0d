"""The supervision of the child processes: it restarts workers, and reports what ended."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from lowtide_cli.local import Child, Stack, ending, last_lines
from lowtide_cli.terminal import Exit
from lowtide_cli.terminal.output import stderr

_CHECK_SECONDS = 0.2
_CLOUD_CHECK_SECONDS = 2.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
"""A worker that ran for this long before it ended is restarted after the first pause."""


def supervise(console: Console, stack: Stack) -> Exit:
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
