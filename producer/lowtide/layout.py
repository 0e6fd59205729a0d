"""Where things lie: the ids, and the spool's names for everything that belongs to a batch."""

from __future__ import annotations

import re
import secrets
import time

BATCH_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,47}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_batch_id() -> str:
    """A fresh batch id: `b`, the time in milliseconds and 50 random bits, in base 32, so ids sort by age."""
    number = (time.time_ns() // 1_000_000) << 50 | secrets.randbits(50)
    digits = []
    for _ in range(20):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "b" + "".join(reversed(digits))


def job_id(batch_id: str, number: int) -> str:
    """The id of a batch's job `number` (from 1). Known before the provider is asked."""
    return f"{batch_id}-{number}"


def split_job_id(job: str) -> tuple[str, int]:
    """The batch id and number of a job id. Raises `ValueError` for anything else."""
    batch_id, dash, number = job.rpartition("-")
    if not dash or not BATCH_ID.fullmatch(batch_id) or not _NUMBER.fullmatch(number):
        raise ValueError(f"not a job id: {job!r:.80}")
    return batch_id, int(number)


def display_name(job: str) -> str:
    """The provider's display name of a job: how our own jobs are found again in the provider's list."""
    return f"lowtide-{job}"


def job_of_display_name(name: str | None) -> str | None:
    """The job id in a display name, or None for somebody else's job."""
    return name.removeprefix("lowtide-") if name and name.startswith("lowtide-") else None


class BatchFiles:
    """Names in the spool of what belongs to one batch."""

    def __init__(self, batch_id: str) -> None:
        if not BATCH_ID.fullmatch(batch_id):
            raise ValueError(f"not a batch id: {batch_id!r:.80}")
        self.folder = f"batches/{batch_id}"
        self.requests = f"{self.folder}/requests.jsonl"
        """Provider lines: `{"key": wire key, "request": GenerateContentRequest}`, in ordinal order."""
        self.keys = f"{self.folder}/keys.jsonl"
        """`[wire key, key]` or `[wire key, key, metadata]` of each request, in ordinal order."""
        self.index = f"{self.folder}/index.bin"
        """Offsets into both, 16 bytes a request: see `lowtide.requests`."""
        self.key_index = f"{self.folder}/keyindex.bin"
        """Ordinals by the hash of their key, for requests that travel under it: see `lowtide.requests.KeyIndex`."""
        self.groups = f"{self.folder}/groups.bin"
        """A byte for each request, where not all may share a job: see `lowtide.importer`."""
        self.results = f"{self.folder}/results"
        """Folder of the stored results, one file a segment."""
        self.quarantine = f"{self.folder}/quarantine"
        """Folder of output rows that are nobody's, with the reason."""
        self.inbox = f"inbox/{batch_id}"
        """Where a producer without this package leaves `batch.json` and `requests.jsonl`."""

    def job(self, number: int) -> str:
        """Folder of a job's working files."""
        return f"{self.folder}/jobs/{number}"

    def output(self, number: int, piece: str) -> str:
        """A piece of the provider's output of a job, as it came."""
        return f"{self.job(number)}/output-{piece}.jsonl"

    def rest(self, number: int, piece: str) -> str:
        """Outcomes that Lowtide itself decided for requests of a job that has no output for them."""
        return f"{self.job(number)}/rest-{piece}.jsonl" if piece else f"{self.job(number)}/rest.jsonl"

    def result(self, number: int, segment: int) -> str:
        """The stored results of one segment."""
        return f"{self.results}/{number:05d}-{segment:07d}.jsonl"

    def quarantined(self, number: int, segment: int) -> str:
        """The quarantined rows of one segment."""
        return f"{self.quarantine}/{number:05d}-{segment:07d}.jsonl"
