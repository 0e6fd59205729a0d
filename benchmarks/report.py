"""The report: tables on the terminal, a chart, JSON, and the block of figures in docs/performance.md.

It is made from the JSON files in `benchmarks/results`, so it can be made again without new measurements.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import end_to_end, fan_out, growth, waiting
from benchmarks.parts import Bar, Found, Summary

PARTS = ("end_to_end", "fan_out", "submit", "waiting", "growth", "spool")
RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
CHART = "chart.png"
BEGIN = "<!-- figures: begin (make bench writes what is between these two lines) -->"
END = "<!-- figures: end -->"
_PACKAGES = ("inspect_ai", "langasync", "celery", "google-genai", "redis", "orjson", "msgspec")


def machine() -> dict[str, Any]:
    """Returns the machine and the versions of the measurement."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {_version(platform.release())} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def _version(release: str) -> str:
    """The version of a kernel, without the name of its build, which says nothing to others."""
    return ".".join(release.split("-")[0].split(".")[:2])


def save(part: str, data: dict[str, Any], results: Path) -> None:
    """Saves the figures of a part."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{part}.json").write_text(json.dumps(data, indent=1) + "\n")


def load(results: Path) -> dict[str, dict[str, Any]]:
    """Returns the figures of all measured parts."""
    found = {}
    for part in PARTS:
        path = results / f"{part}.json"
        if path.exists():
            found[part] = json.loads(path.read_text())
    return found


def summaries(found: dict[str, dict[str, Any]]) -> dict[str, Summary]:
    """Returns the tables and bars of all parts."""
    return {part: importlib.import_module(f"benchmarks.{part}").summary(data) for part, data in found.items()}


def show(parts: Iterable[Summary]) -> None:
    """Prints tables and bars."""
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=160)
    bars: list[Bar] = []
    for part in parts:
        table = Table(*part.columns, title=part.title, title_justify="left", title_style="bold")
        for row in part.rows:
            table.add_row(*row)
        if part.condition:
            console.print(part.condition, style="dim")
        console.print(table)
        for note in part.notes:
            console.print(note, style="dim")
        bars += part.bars
    table = Table("bar", "reached", "wanted", "", "", title="Bars", title_justify="left", title_style="bold")
    for bar in bars:
        table.add_row(bar.what, _reached(bar), _wanted(bar), _verdict(bar), bar.note)
    console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _reached(bar: Bar) -> str:
    return "-" if bar.value is None or math.isnan(bar.value) else f"{_number(bar.value)}{bar.unit}"


def _wanted(bar: Bar) -> str:
    return f"{'at least' if bar.at_least else 'at most'} {_number(bar.target)}{bar.unit}"


def _verdict(bar: Bar) -> str:
    return {True: "met", False: "NOT MET", None: "not measured"}[bar.met]


def write_document(found: dict[str, dict[str, Any]], document: Path = DOCUMENT) -> None:
    """Writes the figures between the markers of the document. Raises `ValueError` if it has no markers."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n\n{_markdown(found)}\n{END}{after}")


def _markdown(found: dict[str, dict[str, Any]]) -> str:
    parts = summaries(found)
    lines: list[str] = []
    where = next(iter(found.values()))["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    lines += [
        f"Measured {where['time'][:10]} on {where['cores']} cores, {where['memory_gib']} GiB, {where['system']}, "
        f"Python {where['python']}; {packages}.",
        "",
    ]
    quick = [part for part, data in found.items() if data.get("quick")]
    if quick:
        lines += [f"From a quick run with small sizes: {', '.join(quick)}.", ""]
    lines += ["| bar | reached | wanted | | |", "|---|---|---|---|---|"]
    for part in parts.values():
        lines += [_row([bar.what, _reached(bar), _wanted(bar), _verdict(bar), bar.note]) for bar in part.bars]
    lines += ["", f"![Charts of the first five parts](../benchmarks/results/{CHART})", ""]
    for part in parts.values():
        lines += [f"### {part.title}", "", *([part.condition, ""] if part.condition else [])]
        lines += [_row(part.columns), "|" + "---|" * len(part.columns)]
        lines += [_row(row) for row in part.rows]
        lines += [""]
        for note in part.notes:
            lines += [note, ""]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def draw(found: dict[str, dict[str, Any]], results: Path) -> None:
    """Draws the chart: wall time and memory end to end, fan-out, waiting, growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(17, 9), layout="constrained")
    (time_axes, memory_axes, fan_axes), (waiting_axes, growth_axes, flat_axes) = axes
    if "end_to_end" in found:
        _lines(time_axes, found["end_to_end"], end_to_end.NAMES, "seconds", "End to end: wall time")
        _lines(memory_axes, found["end_to_end"], end_to_end.NAMES, "peak", "End to end: largest process")
        for lines in (time_axes, memory_axes):
            _legend(lines, 2)
    if "fan_out" in found:
        _bars(fan_axes, found["fan_out"])
    if "waiting" in found:
        _waiting(waiting_axes, found["waiting"])
    if "growth" in found:
        _lines(growth_axes, found["growth"], (growth.LOWTIDE,), "seconds", "Growth: wall time")
        _growth(flat_axes, found["growth"])
    for plain in axes.flat:
        plain.xaxis.set_major_formatter("{x:,.0f}")
        if plain is not fan_axes:
            plain.yaxis.set_major_formatter("{x:,g}")
    figure.savefig(results / CHART, dpi=110)
    plt.close(figure)


def _legend(axes: Any, columns: int) -> None:
    """Puts the legend below the axes, where it covers nothing."""
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False)


def _lines(axes: Any, data: dict[str, Any], names: Iterable[str], what: str, title: str) -> None:
    found = Found(data)
    for name in names:
        sizes = [size for size in data["sizes"] if found.good(name, size)]
        if what == "seconds":
            values = [found.seconds(name, size) for size in sizes]
        else:
            values = [found.peak(name, size, *end_to_end.OURS) for size in sizes]
        ours = name.startswith("Lowtide")
        axes.plot(sizes, values, marker="o", label=name, linewidth=2.5 if ours else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="requests", ylabel="s" if what == "seconds" else "MiB", title=title)
    axes.grid(visible=True, which="major", alpha=0.3)


def _bars(axes: Any, data: dict[str, Any]) -> None:
    found = Found(data)
    size = max(data["sizes"])
    names = [name for name in reversed(fan_out.NAMES) if found.good(name, size)]
    rates = [found.rate(name, size) for name in names]
    labels = [name.replace(", ", "\n", 1) for name in names]
    drawn = axes.barh(labels, rates, color=["#888" if name == fan_out.FLOOR else "#27c" for name in names])
    axes.bar_label(drawn, [f" {rate:,.0f}" for rate in rates], fontsize=8)
    axes.set(xlabel="rows per second", title=f"Fan-out of {size:,} rows")
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.18)


def _waiting(axes: Any, data: dict[str, Any]) -> None:
    found = Found(data)
    for name in (waiting.LOWTIDE, waiting.COUNTDOWN):
        points = [
            (case.size, case.runs[0].peak("worker"))
            for case in found.cases
            if case.name == name and case.size and case.runs
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="waiting jobs", ylabel="MiB", title="Waiting: largest worker process")
    axes.grid(visible=True, alpha=0.3)
    _legend(axes, 2)


def _growth(axes: Any, data: dict[str, Any]) -> None:
    found = Found(data)
    sizes = [size for size in data["sizes"] if found.good(growth.LOWTIDE, size)]
    for role, label in (("contender", "producer"), ("worker", "worker"), ("Redis", "Redis"), ("emulator", "emulator")):
        axes.plot(sizes, [found.peak(growth.LOWTIDE, size, role) for size in sizes], marker="o", label=label)
    axes.set(xscale="log", xlabel="requests", ylabel="MiB", title="Growth: largest process", ylim=(0, None))
    axes.grid(visible=True, alpha=0.3)
    _legend(axes, 4)
