"""The common ground of the parts: their configuration, the order of their runs, and their summary for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measure import Budget, Run, Use, median

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of a part."""

    sizes: Sequence[int]
    repeat: int
    seconds: float
    """Time for the part. The first round always runs. Later runs must fit in the time that is left."""
    longest: float
    """Longest single run, in seconds. A run that is expected to take longer is skipped and recorded as not run."""
    folder: Path


@dataclass
class Measured:
    """The runs of one contender at one size."""

    name: str
    size: int
    runs: list[Run] = field(default_factory=list)
    skipped: str | None = None

    def record(self) -> dict[str, Any]:
        """Returns it as plain data, for the JSON file."""
        runs = [asdict(run) for run in self.runs]
        return {"name": self.name, "size": self.size, "skipped": self.skipped, "runs": runs}


@dataclass
class Case(Measured):
    """One contender at one size, to be run several times."""

    _: KW_ONLY
    work: Callable[[], Run]
    took: float = 0.0
    """Seconds of the last run, with its preparation."""


def take_turns(cases: Sequence[Case], config: Config) -> list[dict[str, Any]]:
    """Runs all cases round by round, small sizes first. Every other round reverses the order of the contenders."""
    budget = Budget(config.seconds)
    for number in range(config.repeat):
        sizes = sorted({case.size for case in cases})
        for size in sizes:
            same = [case for case in cases if case.size == size]
            for case in reversed(same) if number % 2 else same:
                if number == 0:
                    case.skipped = _too_long(case, cases, config.longest)
                    if case.skipped:
                        console.print(f"  {case.name}, {case.size:,}: {case.skipped}")
                        continue
                elif case.skipped or case.runs[-1].error or not budget.allows(case.took):
                    continue
                _run(case, number)
    return [case.record() for case in cases]


def _run(case: Case, number: int) -> None:
    began = time.monotonic()
    try:
        run = case.work()
    except Exception as error:  # noqa: BLE001 - the error of one case is its result, and must not end the others
        run = Run(0.0, error=f"{type(error).__name__}: {error}")
    case.took = time.monotonic() - began
    case.runs.append(run)
    rate = f"{run.rows / run.seconds:,.0f} rows/s" if run.seconds else ""
    console.print(
        f"  round {number + 1}: {case.name}, {case.size:,}: {run.seconds:.2f} s, {rate}"
        + (f"; {run.error}" if run.error else "")
    )


def _too_long(case: Case, cases: Sequence[Case], longest: float) -> str | None:
    smaller = [other for other in cases if other.name == case.name and other.size < case.size]
    if not smaller:
        return None
    last = max(smaller, key=lambda other: other.size)
    if last.skipped:
        return last.skipped
    if not last.runs or last.runs[-1].error or last.size * 5 > case.size * 4:
        return None
    expected = last.runs[-1].seconds * case.size / last.size
    if expected <= longest:
        return None
    return f"not run: about {expected:,.0f} s expected from {last.size:,}, more than the {longest:.0f} s a run may take"


@dataclass(frozen=True)
class Bar:
    """A target and the value that was reached."""

    what: str
    value: float | None
    """None if a value that the bar compares was not measured."""
    target: float
    at_least: bool
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met. None if that is unknown."""
        if self.value is None or self.value != self.value:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def at_least(what: str, value: float | None, target: float, unit: str = "", note: str = "") -> Bar:
    """Returns a bar that larger values meet."""
    return Bar(what, value, target, True, unit, note)


def at_most(what: str, value: float | None, target: float, unit: str = "", note: str = "") -> Bar:
    """Returns a bar that smaller values meet."""
    return Bar(what, value, target, False, unit, note)


@dataclass
class Summary:
    """A part as the report shows it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    bars: list[Bar]
    notes: list[str] = field(default_factory=list)
    condition: str = ""
    """Condition of the measurement that matters for all figures, shown before them; "" for none."""


class Found:
    """The cases of a part, read from JSON."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.cases = [
            Measured(case["name"], case["size"], [_read_run(run) for run in case["runs"]], case["skipped"])
            for case in data["cases"]
        ]

    def good(self, name: str, size: int) -> list[Run]:
        """Returns the runs of a case that had no error."""
        return [
            run for case in self.cases if (case.name, case.size) == (name, size) for run in case.runs if not run.error
        ]

    def seconds(self, name: str, size: int) -> float:
        """Returns the median wall time, NaN if there is no run."""
        return median(run.seconds for run in self.good(name, size))

    def peak(self, name: str, size: int, *roles: str) -> float:
        """Returns the median of the largest memory peak among the processes of these roles, in MiB."""
        return median(run.peak(*roles) for run in self.good(name, size))

    def rate(self, name: str, size: int) -> float:
        """Returns the median of the rows per second."""
        return median(run.rows / run.seconds for run in self.good(name, size))

    def why(self, name: str, size: int) -> str | None:
        """Returns the reason why a case has no good run, without the address that failed."""
        for case in self.cases:
            if (case.name, case.size) == (name, size):
                errors = (run.error.partition(" for url")[0] for run in case.runs if run.error)
                return case.skipped or next(errors, None)
        return None


def _read_run(data: dict[str, Any]) -> Run:
    return Run(**{**data, "uses": [Use(**use) for use in data["uses"]]})


def ratio(above: float, below: float) -> float | None:
    """Returns one value divided by the other, None if either is missing."""
    if above != above or below != below or not below:
        return None
    return above / below
