"""The ids, and the names in the spool of everything that belongs to a batch."""

from __future__ import annotations

import re
import secrets
import time

INSTALLATION_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{8}", re.ASCII)
BATCH_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,47}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_RESULT = re.compile(r"(\d+)-(\d+)\.jsonl", re.ASCII)
DISPLAY_PREFIX = "lowtide-"
"""Of the display names of all installations."""
SINGLES = "singles"
"""Folder in the spool of large singles that wait to be gathered."""
PROBES = "probes"
"""Folder in the spool of the files by which `lowtide doctor` finds out whether it serves."""
WEBHOOK_METADATA_KEY = "lowtide_job"
"""The key of the metadata of a job's webhook that holds the job's id."""
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_batch_id() -> str:
    """A fresh batch id: `b`, the time in milliseconds and 50 random bits, in base 32, so ids sort by age."""
    return "b" + _base_32((time.time_ns() // 1_000_000) << 50 | secrets.randbits(50), digits=20)


def new_installation_id() -> str:
    """A fresh id of an installation: 40 random bits in base 32."""
    return _base_32(secrets.randbits(40), digits=8)


def _base_32(number: int, *, digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(digits)))


def job_id(batch_id: str, number: int) -> str:
    """The id of a batch's job `number` (from 1). Known before the provider is asked."""
    return f"{batch_id}-{number}"


def job_prefix(batch_id: str) -> str:
    """The beginning of the ids of all jobs of a batch; their numbers follow."""
    return f"{batch_id}-"


def split_job_id(job: str) -> tuple[str, int]:
    """The batch id and number of a job id. Raises `ValueError` for anything else."""
    batch_id, dash, number = job.rpartition("-")
    if not dash or not BATCH_ID.fullmatch(batch_id) or not _NUMBER.fullmatch(number):
        raise ValueError(f"not a job id: {job!r:.80}")
    return batch_id, int(number)


def display_name(installation: str, job: str) -> str:
    """The provider's display name of a job: how an installation finds its own jobs again in the provider's list."""
    return f"{DISPLAY_PREFIX}{installation}-{job}"


def job_of_display_name(name: str | None, installation: str) -> str | None:
    """The job id in a display name, or None for a job that is not this installation's."""
    prefix = f"{DISPLAY_PREFIX}{installation}-"
    return name.removeprefix(prefix) if name and name.startswith(prefix) else None


def single_file(name: str) -> str:
    """The name in the spool of a large single that waits to be gathered; `name` is a fresh id."""
    return f"{SINGLES}/{name}.json"


def probe_file() -> str:
    """A fresh name in the spool for a file that is written, read and deleted to see whether that is possible."""
    return f"{PROBES}/{secrets.token_hex(8)}"


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
        """Offsets into both and sums of tokens; of a small batch also their content: see `lowtide.spool.format`."""
        self.key_index = f"{self.folder}/keyindex.bin"
        """Ordinals by the hash of their key, for requests that travel under it: see `lowtide.spool.key_index`."""
        self.groups = f"{self.folder}/groups.bin"
        """A byte for each request, where not all may share a job: see `lowtide.shaping.vertex_import.groups`."""
        self.results = f"{self.folder}/results"
        """Folder of the stored results, one file a segment."""
        self.quarantine = f"{self.folder}/quarantine"
        """Folder of output rows that belong to no request, with the reason."""
        self.partial = f"{self.folder}/partial"
        """Folder of answers that are not complete yet: see `lowtide_worker.partial_answers`."""
        self.jobs = f"{self.folder}/jobs"
        """Folder with a folder for each job's working files, named by its number."""
        self.inbox = f"inbox/{batch_id}"
        """Folder in which a producer without this package leaves `batch.json` and `requests.jsonl`."""
        self.inbox_files = tuple(f"{self.inbox}/{name}" for name in ("batch.json", "requests.jsonl", "error.json"))
        """All that Lowtide reads and writes there. Without the first there is no batch in the inbox."""

    def job(self, number: int) -> str:
        """Folder of a job's working files."""
        return f"{self.jobs}/{number}"

    def intent(self, number: int) -> str:
        """Says that a job is being created, or was: see `lowtide_worker.intents`."""
        return f"{self.job(number)}/intent.json"

    def output(self, number: int, piece: str) -> str:
        """A piece of the provider's output of a job, as it came."""
        return f"{self.job(number)}/output-{piece}.jsonl"

    def rest(self, number: int, piece: str) -> str:
        """Outcomes that Lowtide itself decided for requests of a job that has no output for them."""
        return f"{self.job(number)}/rest-{piece}.jsonl"

    def result(self, number: int, segment: int) -> str:
        """The stored results of one segment."""
        return f"{self.results}/{number:05d}-{segment:07d}.jsonl"

    def segment_of(self, name: str) -> tuple[int, int] | None:
        """The numbers of the job and of the segment whose results have this name; None for any other name.

        File systems of networks, desktops and backups leave files of their own in any folder.
        """
        found = _RESULT.fullmatch(name.removeprefix(f"{self.results}/"))
        return (int(found[1]), int(found[2])) if found else None

    def result_index(self, number: int) -> str:
        """The place of each result of a settled job, unless it is small: see `lowtide.spool.result_index`."""
        return f"{self.folder}/resultindex/{number:05d}.bin"

    def quarantined(self, number: int, segment: int) -> str:
        """The quarantined rows of one segment."""
        return f"{self.quarantine}/{number:05d}-{segment:07d}.jsonl"

    def partial_answers(self, number: int, segment: int, digest: str) -> str:
        """The answers of one segment that are not complete yet. `digest` is that of the content."""
        return f"{self.partial}/{number:05d}-{segment:07d}-{digest}.jsonl"

    def partial_index(self, number: int, digest: str) -> str:
        """Says where the answers of a job are that are not complete yet. `digest` is that of the content."""
        return f"{self.partial}/{number:05d}-{digest}.bin"
