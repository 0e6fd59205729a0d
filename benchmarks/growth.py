"""Part 5, growth: how time and memory grow as the batch grows tenfold and a hundredfold.

The same as end to end, with two worker processes. The exponent is the slope of log(time) over log(size); small batches
carry fixed costs (a poll, a few round trips) that flatten it, so the last tenfold is taken by itself too, and the worse
of both is held against the bar.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import end_to_end
from benchmarks.measure import exponent
from benchmarks.parts import Bar, Case, Config, Found, Summary, take_turns
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
    rows = []
    for size in data["sizes"]:
        good = found.good(LOWTIDE, size)
        rows.append([
            f"{size:,}",
            *((f"{found.seconds(LOWTIDE, size):.2f}", f"{found.rate(LOWTIDE, size):,.0f}",
               f"{found.peak(LOWTIDE, size, 'contender'):.1f}", f"{found.peak(LOWTIDE, size, 'worker'):.1f}",
               f"{found.peak(LOWTIDE, size, 'Redis'):.1f}", f"{found.peak(LOWTIDE, size, 'emulator'):.1f}")
              if good else ("-",) * 6),
            str(len(good)), "" if good else (found.why(LOWTIDE, size) or "")[:160],
        ])  # fmt: skip
    bars = []
    if len(sizes) > 1:
        seconds = [found.seconds(LOWTIDE, size) for size in sizes]
        slopes = [exponent(sizes, seconds), exponent(sizes[-2:], seconds[-2:])]
        bars.append(Bar(
            f"growth: exponent of time, {sizes[0]:,} to {sizes[-1]:,}", max(slopes), 1.05, False,
            note=f"over all {slopes[0]:.2f}, last step {slopes[1]:.2f}",
        ))  # fmt: skip
        for role, what in (("contender", "producer"), ("worker", "largest worker process")):
            first, last = (found.peak(LOWTIDE, size, role) for size in (sizes[0], sizes[-1]))
            bars.append(Bar(
                f"growth: {what}'s memory, {sizes[0]:,} to {sizes[-1]:,}", 100 * (last / first - 1), 10, False, " %",
                note=f"{first:.0f} to {last:.0f} MiB, exponent "
                f"{exponent(sizes, [found.peak(LOWTIDE, size, role) for size in sizes]):.3f}",
            ))  # fmt: skip
    columns = ["requests", "s", "requests/s", "producer peak MiB", "worker peak MiB", "Redis peak MiB",
               "emulator peak MiB", "runs", "remark"]  # fmt: skip
    return Summary("Growth", columns, rows, bars)
