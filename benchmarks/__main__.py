"""The command: `python -m benchmarks [part ...] [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import delivery, report, singles, small_batches, waits, webhooks
from benchmarks.parts import Config, console

_FULL: dict[str, tuple[list[int], float]] = {
    "submit": ([1_000_000], 60),
    "fan_out": ([1024], 420),
    "growth": ([10_000, 100_000, 1_000_000], 110),
    "waiting": ([1_000, 10_000, 100_000], 0),
    "end_to_end": ([2_000, 10_000, 50_000, 200_000], 480),
    "spool": ([100_000], 120),
}
"""The sizes of each part, and the seconds for its later rounds. Fan-out's sizes are MiB of result file."""
_QUICK: dict[str, tuple[list[int], float]] = {
    "submit": ([100_000], 5),
    "fan_out": ([64], 10),
    "growth": ([1_000, 10_000, 100_000], 5),
    "waiting": ([2_000], 0),
    "end_to_end": ([1_000, 4_000], 10),
    "spool": ([10_000], 5),
}
_UNPUBLISHED: dict[str, tuple[Callable[[Sequence[int]], bool | None], list[int]]] = {
    "small": (small_batches.measure, [1000]),
    "delivery": (delivery.measure, [40_000]),
    "singles": (singles.measure, [1000]),
    "waits": (waits.measure, [1000]),
    "webhooks": (webhooks.measure, [200]),
}
"""Parts that print their figures, with their sizes. One that has bars returns whether they are met."""
_LONGEST_FULL, _LONGEST_QUICK = 150.0, 45.0


def main() -> int:
    """Runs the named parts, or all, and reports. With `--strict` it returns 1 if a bar is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Lowtide beside the alternatives.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"{', '.join(report.PARTS)}; default: all. These print only: {', '.join(_UNPUBLISHED)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: about five minutes")
    parser.add_argument("--repeat", type=int, help="number of rounds, for medians (default 3; 1 with --quick)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="sizes for all named parts: requests, jobs or (fan_out) MiB"
    )
    parser.add_argument("--time", type=float, default=1.0, metavar="FACTOR", help="multiply the time for later rounds")
    parser.add_argument(
        "--longest",
        type=float,
        metavar="S",
        help="skip runs expected to take longer, in seconds (default 150; 45 with --quick)",
    )
    parser.add_argument("--results", type=Path, help="folder for JSON and chart (default: benchmarks/results[/quick])")
    parser.add_argument("--report", action="store_true", help="measure nothing, and report the saved results")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is not met")
    given = parser.parse_args()
    if unknown := set(given.parts) - {*report.PARTS, *_UNPUBLISHED}:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    results = given.results or (report.RESULTS / "quick" if given.quick else report.RESULTS)
    unpublished = [part for part in given.parts if part in _UNPUBLISHED]
    met = [measure(given.sizes or sizes) for measure, sizes in map(_UNPUBLISHED.__getitem__, unpublished)]
    given.parts = [part for part in given.parts if part not in _UNPUBLISHED]
    missed = given.strict and False in met
    if missed or (unpublished and not given.parts):
        return int(missed)
    if not given.report:
        _measure(given, results)
    found = report.load(results)
    summaries = report.summaries(found)
    report.show(summaries.values())
    if found:
        report.draw(found, results)
        # A quick run is a trial. The published figures are those of a full run.
        if results == report.RESULTS:
            report.write_document(found)
    unmet = any(bar.met is False for summary in summaries.values() for bar in summary.bars)
    return 1 if given.strict and unmet else 0


def _measure(given: argparse.Namespace, results: Path) -> None:
    began = time.monotonic()
    machine = report.machine()
    plan = _QUICK if given.quick else _FULL
    for part, (sizes, seconds) in plan.items():
        if given.parts and part not in given.parts:
            continue
        console.print(f"[bold]{part}[/bold] ({time.monotonic() - began:.0f} s so far)")
        with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
            config = Config(
                sizes=sorted(given.sizes or sizes),
                repeat=given.repeat or (1 if given.quick else 3),
                seconds=seconds * given.time,
                longest=given.longest or (_LONGEST_QUICK if given.quick else _LONGEST_FULL),
                folder=Path(folder) / part,
            )
            part_began = time.monotonic()
            data = importlib.import_module(f"benchmarks.{part}").measure(config)
        took = time.monotonic() - part_began
        report.save(
            part, {"machine": machine, "quick": given.quick, "repeat": config.repeat, "took": took, **data}, results
        )
    console.print(f"[bold]measured in {time.monotonic() - began:.0f} s[/bold]")


if __name__ == "__main__":
    sys.exit(main())
