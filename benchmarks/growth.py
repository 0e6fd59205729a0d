"""Part 5, growth: time and memory as the batch grows tenfold and a hundredfold.

It is the same run as end to end, with two worker processes. The exponent is the slope of log(time) over log(size).
Small batches have fixed costs (a poll, a few round trips) that lower it, so the last step is measured by itself too,
and the bar compares the worse of both.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import end_to_end
from benchmarks.measure import exponent
from benchmarks.parts import Case, Config, Found, Summary, at_most, take_turns
from benchmarks.servers import Bench

NAME = "growth"
LOWTIDE = end_to_end.LOWTIDE_2


def measure(config: Config) -> dict[str, Any]:
    """Runs the part."""
    with Bench(config.folder) as bench:
        cases = [
            Case(LOWTIDE, size, work=partial(end_to_end.lowtide, bench, 2, size, 2 * config.longest))
            for size in config.sizes
        ]
        return {"sizes": list(config.sizes), "cases": take_turns(cases, config)}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found = Found(data)
    sizes = [size for size in data["sizes"] if found.good(LOWTIDE, size)]
    rows = [_row(found, size) for size in data["sizes"]]
    bars = []
    if len(sizes) > 1:
        steps = f"{sizes[0]:,} to {sizes[-1]:,}"
        seconds = [found.seconds(LOWTIDE, size) for size in sizes]
        slopes = [exponent(sizes, seconds), exponent(sizes[-2:], seconds[-2:])]
        note = f"over all {slopes[0]:.2f}, last step {slopes[1]:.2f}"
        bars.append(at_most(f"growth: exponent of time, {steps}", max(slopes), 1.05, note=note))
        for role, what in (("contender", "producer"), ("worker", "largest worker process")):
            peaks = [found.peak(LOWTIDE, size, role) for size in sizes]
            growth = 100 * (peaks[-1] / peaks[0] - 1)
            note = f"{peaks[0]:.0f} to {peaks[-1]:.0f} MiB, exponent {exponent(sizes, peaks):.3f}"
            bars.append(at_most(f"growth: {what}'s memory, {steps}", growth, 10, " %", note))
    peak_columns = [f"{role} peak MiB" for role in ("producer", "worker", "Redis", "emulator")]
    columns = ["requests", "s", "requests/s", *peak_columns, "runs", "remark"]
    return Summary("Growth", columns, rows, bars)


def _row(found: Found, size: int) -> list[str]:
    good = found.good(LOWTIDE, size)
    if not good:
        return [f"{size:,}", *("-",) * 6, "0", (found.why(LOWTIDE, size) or "")[:160]]
    peaks = [f"{found.peak(LOWTIDE, size, role):.1f}" for role in ("contender", "worker", "Redis", "emulator")]
    figures = [f"{found.seconds(LOWTIDE, size):.2f}", f"{found.rate(LOWTIDE, size):,.0f}", *peaks]
    return [f"{size:,}", *figures, str(len(good)), ""]
