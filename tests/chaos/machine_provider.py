"""A provider in memory: its jobs continue when the test says so, it fails on command, and it keeps the bill.

It is also the judge of what is created: a request that is in a live job, or was answered in one whose output can still
be fetched, must not be in another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle, islice
from typing import IO, Any, TypeVar

import msgspec
from tests.chaos.machine_actors import Actor, MachineTime, current, point
from tests.chaos.machine_output import FINAL, Line, Row, error_of, lines_of, ordinal_of, place_of

from lowtide.states import JobState, Kind
from lowtide_worker.providers import (
    Denied,
    Missing,
    NewJob,
    Output,
    OutputRow,
    Part,
    ProviderJob,
    Refused,
    Throttled,
    Unavailable,
    Uploaded,
    Writer,
)
from lowtide_worker.providers.protocol import ProviderInput
from lowtide_worker.providers.ranges import whole_lines

T = TypeVar("T")
_PAGE = 2
_CHUNK = 150
_decode = msgspec.json.decode


class Fault(StrEnum):
    """The ways in which one call fails."""

    LOST_CALL = "lost call"
    LOST_REPLY = "lost reply"
    THROTTLED = "throttled"
    DENIED = "denied"
    REFUSED = "refused"
    MISSING = "missing"


@dataclass
class MachineJob:
    """A job at the provider, with what the judge wants to know of it."""

    name: str
    display_name: str
    prompts: dict[str, str]
    """By wire key."""
    places: dict[str, int]
    """The character at which each answer goes on, by wire key."""
    ranged: bool
    """Its output is read in place."""
    created: float
    listed_from: float
    """The list does not show it before."""
    state: JobState = JobState.PENDING
    output: bytes | None = None
    stopping: bool = False
    hidden_until: float = 0.0
    """A call by name does not find it before, though it exists."""
    gone: bool = False
    """The provider lost it, or its output."""
    vanished: bool = False
    """The provider lost it."""
    deleted: bool = False
    doubtful: bool = False
    """It, or a twin, was made so long after its intent that no client could have prevented two, or the store was put
    back to a time before it."""
    final: set[int] = field(default_factory=set)
    """Ordinals whose result is in its output."""

    @property
    def live(self) -> bool:
        return not (self.state.terminal or self.gone or self.deleted)


class MachineProvider:
    """See `Provider`. Between any two steps of it, others may do something."""

    def __init__(self, clock: MachineTime, *, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        """Seconds from an intent until its job must be listed, if there is one: a later one is excused."""
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.all: list[MachineJob] = []
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.faults: dict[str, Fault] = {}
        self.slow = 0
        """So many calls of `ready` still return False."""
        self.lag = 0.0
        self.ranged = False
        self.wrongs: list[str] = []
        self.excused = self._uploaded = 0
        self.by_name: dict[str, MachineJob] = {}
        self._authorized: set[Actor | None] = set()

    # ---- what the test does

    def finish(self, job: MachineJob, end: JobState, rows: Sequence[Row], *, with_output: bool, shuffle: int) -> None:
        """Ends a live job. Its rows end as `rows` says, over and over, in an order that follows from `shuffle`."""
        if not job.live:
            return
        job.state = JobState.CANCELLED if job.stopping and end is not JobState.SUCCEEDED else end
        if not with_output and end not in (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED):
            return
        lines: list[bytes] = []
        for (wire, prompt), row in zip(job.prompts.items(), islice(cycle(rows), len(job.prompts)), strict=True):
            lines += lines_of(wire, prompt, row, job.places[wire])
            if row in FINAL:
                job.final.add(ordinal_of(wire))
        random.Random(shuffle).shuffle(lines)
        job.output = b"".join(lines)

    def stop(self) -> None:
        """Jobs that were to be cancelled are."""
        for job in self.all:
            if job.live and job.stopping:
                self.finish(job, JobState.CANCELLED, [Row.OK, Row.MISSING], with_output=len(job.prompts) > 1, shuffle=0)

    def lose(self, job: MachineJob, *, output_only: bool) -> None:
        """The job vanishes, or what it brought."""
        job.gone = True
        job.output = None
        if not output_only:
            job.vanished = True
            self.by_name.pop(job.name, None)

    def hide(self, job: MachineJob, seconds: float) -> None:
        """Has a job not be found until so long after it was made."""
        job.hidden_until = max(job.hidden_until, job.created + seconds)

    def calm(self) -> None:
        """From now on nothing fails."""
        self.faults.clear()
        self.lag = self.slow = 0
        for job in self.all:
            job.hidden_until = job.listed_from = 0.0

    def left(self) -> list[str]:
        """Jobs that are still there."""
        return [job.name for job in self.by_name.values()] + list(self.uploads)

    # ---- what the stages do

    def upload(self, display_name: str, data: IO[bytes]) -> Uploaded:
        def effect() -> Uploaded:
            self._uploaded += 1
            name = f"files/{self._uploaded}"
            self.uploads[name] = (display_name, read)
            return Uploaded(name, ready=not self.slow)

        read = b""
        while chunk := data.read(_CHUNK):
            point("provider reads")
            read += chunk
        return self._call("upload", effect)

    def ready(self, input: str) -> bool:  # noqa: A002 - the protocol's word
        def effect() -> bool:
            if input not in self.uploads:
                raise Missing(error_of("NOT_FOUND", input))
            self.slow = max(0, self.slow - 1)
            return not self.slow

        return self._call("ready", effect)

    def pin(self, display_name: str, sources: Sequence[Part]) -> Sequence[str]:
        del display_name
        return [source.name for source in sources]

    def confirm(self, sources: Sequence[Part], until: float) -> None:
        pass

    def has_webhooks(self, kind: Kind) -> bool:
        del kind
        return False

    def authorize(self) -> None:
        self._authorized.add(current())

    def create(self, job: NewJob, deadline: Any = None) -> ProviderJob:
        lines = list(job.lines or ())

        def effect() -> ProviderJob:
            assert current() in self._authorized, "a create must not wait for its token"
            if deadline is not None:
                _still(deadline)
            if job.input is not None and job.input not in self.uploads:
                raise Missing(error_of("NOT_FOUND", job.input))
            sent = self.uploads[job.input][1].splitlines() if job.input is not None else lines
            requests = {line["key"]: line["request"] for line in map(_decode, sent)}
            prompts = {key: request["contents"][0]["parts"][0]["text"] for key, request in requests.items()}
            places = {key: place_of(request.get("continuationToken")) for key, request in requests.items()}
            name = f"batches/{len(self.all) + 1}"
            now = self._clock.time()
            new = MachineJob(name, job.display_name, prompts, places, self.ranged, now, now + self.lag)
            self._judge(new)
            self.all.append(new)
            self.by_name[name] = new
            return _shown(new)

        return self._call("create", effect)

    def get(self, name: str) -> ProviderJob:
        return self._call("get", lambda: _shown(self._found(name)))

    def jobs(
        self, page_token: str | None = None, *, display_name: str | None = None
    ) -> tuple[list[ProviderJob], str | None]:
        del display_name

        def effect() -> tuple[list[ProviderJob], str | None]:
            first = int(page_token or 0)
            there = [job for job in self.all[first : first + _PAGE] if job.name in self.by_name]
            now = self._clock.time()
            shown = [_shown(job) for job in there if job.listed_from <= now]
            return shown, str(first + _PAGE) if first + _PAGE < len(self.all) else None

        return self._call("jobs", effect)

    def inputs(self, page_token: str | None = None) -> tuple[list[ProviderInput], str | None]:
        del page_token

        def effect() -> tuple[list[ProviderInput], str | None]:
            return [ProviderInput(name=name, display_name=by) for name, (by, _) in self.uploads.items()], None

        return self._call("inputs", effect)

    def unreadable_items(self) -> int:
        return 0

    def cancel(self, name: str) -> None:
        def effect() -> None:
            if name in self.by_name and self.by_name[name].live:
                self.by_name[name].stopping = True

        self._call("cancel", effect)

    def delete(self, name: str) -> None:
        def effect() -> None:
            if job := self.by_name.pop(name, None):
                job.deleted = True
                job.output = None

        self._call("delete", effect)

    def delete_input(self, input: str) -> None:  # noqa: A002 - the protocol's word
        def effect() -> None:
            if input in self.uploads:
                del self.uploads[input]

        self._call("delete_input", effect)

    def clear(self, display_name: str) -> None:
        del display_name
        self._call("clear", lambda: None)

    def parts(self, output: Output) -> list[Part] | None:
        def effect() -> list[Part] | None:
            job = self._found(output.job)
            return [Part(job.name, len(self._output(job.name)))] if job.ranged else None

        return self._call("parts", effect)

    def read(self, part: Part, start: int, end: int) -> bytes:
        def effect() -> bytes:
            output = self._output(part.name)
            return whole_lines(lambda first, last: output[first:last], start, end)

        return self._call("read", effect)

    def resumable(self, output: Output) -> bool:
        del output
        return True

    def download(self, output: Output, sink: Writer) -> None:
        whole = self._call("download", lambda: self._output(output.job))
        for start in range(0, len(whole), _CHUNK):
            point("provider writes")
            if start and "download" in self.faults:
                del self.faults["download"]
                raise Unavailable(error_of("CUT", "in the middle of the output"))
            sink.write(whole[start : start + _CHUNK])

    def rows(self, block: bytes) -> list[OutputRow]:
        return [self.row(line) for line in block.splitlines()]

    def row(self, line: bytes) -> OutputRow:
        read = _decode(line, type=Line)
        return OutputRow(read.key, read.response, read.error)

    # ---- how

    def _call(self, method: str, effect: Callable[[], T]) -> T:
        point(f"provider {method}")
        fault = self.faults.pop(method, None)
        match fault:
            case Fault.LOST_CALL:
                raise Unavailable(error_of("UNAVAILABLE", "the call was lost"))
            case Fault.THROTTLED:
                raise Throttled(error_of("RESOURCE_EXHAUSTED", "quota"))
            case Fault.DENIED:
                raise Denied(error_of("UNAUTHENTICATED", "who are you"))
            case Fault.REFUSED:
                raise Refused(error_of("INVALID_ARGUMENT", "no", 3))
            case Fault.MISSING:
                raise Missing(error_of("NOT_FOUND", "not found", 5))
        answer = effect()
        point(f"provider {method} done")
        if fault is Fault.LOST_REPLY:
            raise Unavailable(error_of("UNAVAILABLE", "the reply was lost"))
        return answer

    def _found(self, name: str) -> MachineJob:
        job = self.by_name.get(name)
        if job is None or job.hidden_until > self._clock.time():
            raise Missing(error_of("NOT_FOUND", name, 5))
        return job

    def _output(self, name: str) -> bytes:
        job = self._found(name)
        if job.output is None:
            raise Missing(error_of("NOT_FOUND", f"output of {name}", 5))
        return job.output

    def _judge(self, new: MachineJob) -> None:
        """Whether this job may be made, as far as the provider and the laws of nature go."""
        caller = current()
        new.doubtful = caller is not None and new.listed_from - caller.intent_stored >= self._patience
        batch = new.display_name.rpartition("-")[0]
        ordinals = set(map(ordinal_of, new.prompts))
        for earlier in self.all:
            if earlier.vanished:
                continue
            if earlier.display_name == new.display_name:
                if earlier.doubtful or new.doubtful:
                    earlier.doubtful = new.doubtful = True
                    self.excused += 1
                else:
                    self.wrongs.append(f"{new.name} is a twin of {earlier}")
            elif earlier.display_name.rpartition("-")[0] == batch and not (
                earlier.doubtful or earlier.gone or new.doubtful
            ):
                again = ordinals & set(map(ordinal_of, earlier.prompts))
                if again and earlier.live:
                    self.wrongs.append(f"{new.name} has {again}, which are in the live {earlier}")
                elif paid := again & earlier.final:
                    self.wrongs.append(f"{new.name} has {paid}, which were answered in {earlier}")


def _still(deadline: Any) -> None:
    """Nothing of a call arrives after its deadline."""
    try:
        deadline.left()
    except TimeoutError:
        raise Unavailable(error_of("UNAVAILABLE", "too late")) from None


def _shown(job: MachineJob) -> ProviderJob:
    failed = job.state in (JobState.FAILED, JobState.EXPIRED)
    return ProviderJob(
        name=job.name,
        display_name=job.display_name,
        state=job.state,
        provider_state=job.state.upper(),
        output=f"output of {job.name}" if job.output is not None else None,
        error=error_of("INTERNAL", "the job failed", 13) if failed else None,
        requests=len(job.prompts),
        done_requests=len(job.final),
    )
