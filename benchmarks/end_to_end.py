"""Part 1, end to end: from the user's prompts to all answers in the user's process.

All contenders have the same prompts, the same emulator process and the same poll interval, and every run starts with an
empty emulator, Redis and spool. Imports are done and workers are warm before the clock starts, as in a service that
runs for days; both times are reported separately. The emulator's own time is part of each contender's wall time. It is
shown, and the net column leaves it out.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from benchmarks.measure import Run, median
from benchmarks.parts import Case, Config, Found, Summary, at_least, at_most, ratio, take_turns
from benchmarks.servers import Bench, Contender, Counter, Workers

NAME = "end_to_end"
LOWTIDE_1 = "Lowtide, 1 worker process"
LOWTIDE_2 = "Lowtide, 2 worker processes"
PLAIN = "plain loop"
LANGASYNC = "langasync (inline)"
INSPECT = "inspect_ai (file)"
PER_RESULT = "Celery, a message per result"
NAMES = (LOWTIDE_1, LOWTIDE_2, PLAIN, LANGASYNC, INSPECT, PER_RESULT)
OURS = ("contender", "worker")
"""The roles of a contender's own processes, without the emulator and Redis."""


def lowtide(bench: Bench, processes: int, size: int, timeout: float) -> Run:
    """Runs Lowtide with this many worker processes."""
    bench.clear()
    with Workers(bench, "lowtide_worker", processes) as workers:
        workers.warm_up()
        run = Contender(bench, "run_lowtide", size).run(timeout, {"worker": workers.pid})
        run.extra["worker_start_seconds"] = workers.start_seconds
    return run


def script(bench: Bench, module: str, size: int, timeout: float) -> Run:
    """Runs a contender that is one process."""
    bench.clear()
    env = {
        "GOOGLE_BASE_URL": f"{bench.emulator_url}/v1beta",
        "GOOGLE_API_KEY": "k",
        "LANGASYNC_BATCH_POLL_INTERVAL": "0.5",
        "LANGASYNC_BASE_STORAGE_PATH": str(bench.folder / "contender" / "langasync"),
    }
    return Contender(bench, module, size, env=env).run(timeout, {})


def per_result(bench: Bench, size: int, timeout: float, file: str = "") -> Run:
    """Runs plain Celery with two worker processes."""
    bench.redis().flushall()
    if not file:
        bench.clear()
    counts = bench.folder / "counts"
    Counter(counts).clear()
    env = {"BENCH_COUNTS": str(counts)}
    with Workers(bench, "benchmarks.per_result_app", 2, options=("-Q", "per-result"), env=env) as workers:
        run = Contender(bench, "run_celery_per_result", size, option=file, env=env)
        return run.run(timeout, {"worker": workers.pid})


def measure(config: Config) -> dict[str, Any]:
    """Runs the part."""
    cases = []
    timeout = 2 * config.longest
    with Bench(config.folder) as bench:
        for size in config.sizes:
            cases += [
                Case(LOWTIDE_1, size, work=partial(lowtide, bench, 1, size, timeout)),
                Case(LOWTIDE_2, size, work=partial(lowtide, bench, 2, size, timeout)),
                Case(PLAIN, size, work=partial(script, bench, "run_plain_loop", size, timeout)),
                Case(LANGASYNC, size, work=partial(script, bench, "run_langasync", size, timeout)),
                Case(INSPECT, size, work=partial(script, bench, "run_inspect_ai", size, timeout)),
                Case(PER_RESULT, size, work=partial(per_result, bench, size, timeout)),
            ]
        found = take_turns(cases, config)
    for case in cases:
        for run in case.runs:
            if not run.error and run.rows != case.size:
                raise AssertionError(f"{case.name} has {run.rows} of {case.size} results")
    return {"sizes": list(config.sizes), "cases": found}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found = Found(data)
    rows = [_row(found, name, size) for size in data["sizes"] for name in NAMES]
    at = 50_000 if 50_000 in data["sizes"] else max(data["sizes"])
    ours = found.seconds(LOWTIDE_2, at)
    rivals = [found.peak(name, at, "contender") for name in (INSPECT, LANGASYNC) if found.good(name, at)]
    memory = found.peak(LOWTIDE_2, at, *OURS)
    better = min(rivals, default=0)
    note = f"largest of ours {memory:.0f} MiB, better of theirs {better:.0f} MiB"
    all_ours = [run for name in (LOWTIDE_1, LOWTIDE_2) for size in data["sizes"] for run in found.good(name, size)]
    largest = max((run.peak(*OURS) for run in all_ours), default=math.nan)
    where = f"end to end, {at:,}"
    bars = [
        at_least(f"{where}: inspect_ai's time over ours", ratio(found.seconds(INSPECT, at), ours), 3, "x"),
        at_least(f"{where}: langasync's time over ours", ratio(found.seconds(LANGASYNC, at), ours), 1, "x"),
        at_most(f"{where}: memory per process over the better one's", ratio(memory, better), 0.2, "x", note),
        at_most("end to end: largest process of ours at any size", largest, 200, " MiB"),
    ]
    notes = [
        "Net of the emulator is wall time without the time in which the emulator ran a job; emulator CPU is all its "
        "processor time, with uploads and downloads.",
        "Memory is the largest process of the driver or producer / of the workers.",
        f"CPU before the clock starts (imports): {_imports(found, data['sizes'][0])}.",
    ]
    times = ["wall s", "net of emulator s", "emulator CPU s", "own CPU s"]
    columns = ["requests", "contender", *times, "peak MiB driver / worker", "runs", "remark"]
    return Summary("End to end", columns, rows, bars, notes)


def _row(found: Found, name: str, size: int) -> list[str]:
    good = found.good(name, size)
    if not good:
        why = found.why(name, size) or "not run"
        return [f"{size:,}", name, "-", "-", "-", "-", "-", "0", why.splitlines()[0][:160]]
    job = median(run.extra["emulator_job_seconds"] for run in good)
    busy = median(run.extra["emulator_busy_seconds"] for run in good)
    own = median(run.cpu(*OURS) for run in good)
    seconds = found.seconds(name, size)
    peaks = f"{found.peak(name, size, 'contender'):.0f} / {found.peak(name, size, 'worker'):.0f}"
    times = [f"{seconds:.2f}", f"{seconds - job:.2f}", f"{busy:.2f}", f"{own:.2f}"]
    return [f"{size:,}", name, *times, peaks, str(len(good)), ""]


def _imports(found: Found, size: int) -> str:
    parts = []
    for name in NAMES:
        if good := found.good(name, size):
            text = f"{name} {median(run.extra['import_cpu_seconds'] for run in good):.1f} s"
            starts = [run.extra["worker_start_seconds"] for run in good if "worker_start_seconds" in run.extra]
            parts.append(text + (f" (worker ready after {median(starts):.1f} s)" if starts else ""))
    return ", ".join(parts)
