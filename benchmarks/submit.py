"""Part 3, submit alone: the speed and the memory of a producer that submits requests.

One process calls `BatchQueue.submit` with a million small requests; no worker runs. The time includes the
construction of the `Request` objects, validation, the spool and the record in Redis. A second case submits a JSONL
file.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.measure import Run
from benchmarks.parts import Case, Config, Found, Summary, at_least, at_most, take_turns
from benchmarks.servers import Bench, Contender

NAME = "submit"
OBJECTS = "Request objects"
FILE = "JSONL file"


def _submit(bench: Bench, size: int, option: str, timeout: float) -> Run:
    bench.clear()
    return Contender(bench, "run_lowtide", size, option=option).run(timeout, {})


def measure(config: Config) -> dict[str, Any]:
    """Runs the part."""
    with Bench(config.folder) as bench:
        cases = [
            Case(name, size, work=partial(_submit, bench, size, option, 2 * config.longest))
            for size in config.sizes
            for name, option in ((OBJECTS, "submit"), (FILE, "submit-file"))
        ]
        return {"sizes": list(config.sizes), "cases": take_turns(cases, config)}


def summary(data: dict[str, Any]) -> Summary:
    """Table and bars."""
    found = Found(data)
    rows = []
    for size in data["sizes"]:
        for name in (OBJECTS, FILE):
            good = found.good(name, size)
            if not good:
                rows.append([f"{size:,}", name, "-", "-", "-", "-", "0", (found.why(name, size) or "")[:160]])
                continue
            rate = found.rate(name, size)
            peak = found.peak(name, size, "contender")
            figures = [f"{found.seconds(name, size):.2f}", f"{rate:,.0f}", f"{1e6 / rate:.2f}", f"{peak:.0f}"]
            rows.append([f"{size:,}", name, *figures, str(len(good)), ""])
    size = max(data["sizes"])
    peak = found.peak(OBJECTS, size, "contender")
    bars = [
        at_least(f"submit, {size:,}: small requests per second", found.rate(OBJECTS, size), 100_000, "/s"),
        at_most(f"submit, {size:,}: producer's peak memory", peak, 200, " MiB"),
    ]
    columns = ["requests", "from", "s", "requests/s", "µs each", "peak MiB", "runs", "remark"]
    return Summary("Submit alone", columns, rows, bars)
