"""The measurements: wall time, processor time and peak memory of every process of a run.

Peak memory is the kernel's own high-water mark of resident memory (`VmHWM`). It is reset before the clock starts and
read after it stops, so no peak between two samples is missed. It counts shared pages in every process that maps them,
as a memory limit does. Linux only.
"""

from __future__ import annotations

import math
import mmap
import statistics
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

MIB = 1 << 20
_SAMPLE_SECONDS = 0.5
_WARM_BYTES_A_ROW = 3 << 10
"""More than the processes and files of any contender take together."""


@dataclass
class Use:
    """The memory and processor time of one process between start and stop."""

    role: str
    peak_mib: float
    cpu_seconds: float


@dataclass
class Run:
    """One run of one case."""

    seconds: float
    rows: int = 0
    error: str | None = None
    uses: list[Use] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def peak(self, *roles: str) -> float:
        """Returns the largest peak among the processes whose role starts with one of these, in MiB."""
        return max((use.peak_mib for use in self.uses if use.role.startswith(roles)), default=0.0)

    def cpu(self, *roles: str) -> float:
        """Returns the processor seconds of these processes together."""
        return sum(use.cpu_seconds for use in self.uses if use.role.startswith(roles))


class Watch:
    """A watch over process trees. It includes children that start and end meanwhile, if they run for half a second."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = dict(roots)
        self._peaks: dict[int, float] = {}
        self._cpu: dict[int, float] = {}
        self._cpu_before: dict[int, float] = {}
        self._roles: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, daemon=True)

    def start(self) -> None:
        """Resets the high-water marks and starts to sample."""
        for process in self._processes():
            self._cpu_before[process.pid] = _cpu_seconds(process)
            reset_peak(process.pid)
        self._thread.start()

    def stop(self) -> list[Use]:
        """Stops sampling. Returns what each process used since the start."""
        self._over.set()
        self._thread.join()
        self._sample()
        return [
            Use(role, self._peaks[pid], self._cpu[pid] - self._cpu_before.get(pid, 0.0))
            for pid, role in self._roles.items()
        ]

    def _sample_on(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for process in self._processes():
            peak = peak_mib(process.pid)
            if peak is not None:
                self._peaks[process.pid] = peak
                self._cpu[process.pid] = _cpu_seconds(process)
        for pid in list(self._roles):
            if pid not in self._peaks:
                del self._roles[pid]

    def _processes(self) -> Iterable[psutil.Process]:
        for role, pid in self._roots.items():
            try:
                root = psutil.Process(pid)
                children = root.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            self._roles.setdefault(pid, role)
            yield root
            for number, child in enumerate(children, 1):
                self._roles.setdefault(child.pid, f"{role} child {number}")
                yield child


def warm_memory(rows: int) -> None:
    """Touches as much free memory as a run with this many rows may take.

    A virtual machine may have returned its free memory to its host, and getting it back takes several times as long as
    using it. The first run after a pause would pay for that.
    """
    wanted = min(rows * _WARM_BYTES_A_ROW, psutil.virtual_memory().available // 2)
    mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def tree(pid: int) -> list[int]:
    """Returns the ids of a process and of all its descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def peak_mib(pid: int) -> float | None:
    """Returns the high-water mark of resident memory, None if the process has ended."""
    try:
        with Path(f"/proc/{pid}/status").open() as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except (OSError, ProcessLookupError):
        return None
    return None


def reset_peak(pid: int) -> None:
    """Resets the high-water mark to the memory that is resident now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        # Some containers forbid this. The mark then counts from the start of the process, which is only stricter.
        return


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def cpu_seconds(pid: int) -> float:
    """Returns the processor seconds of a process and all its descendants, until now."""
    return sum(_cpu_seconds(psutil.Process(member)) for member in tree(pid))


def median(values: Iterable[float]) -> float:
    """Returns the median, NaN if there are no values."""
    values = list(values)
    return statistics.median(values) if values else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value below which a share of all values is, by nearest rank."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Returns the slope of log(value) over log(size): 1 is proportional, 0 is constant."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


class Budget:
    """The time of a part. The first round always runs, later runs only if they fit."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def allows(self, seconds: float) -> bool:
        """Returns whether a run of this length still fits."""
        return time.monotonic() + seconds <= self._end
