"""What an emulator is told when it starts.

Every limit has the value documented for the Gemini Developer API, so that a test which says
nothing meets the real ones; every duration is in seconds of the emulated clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The emulator's settings; all have defaults.

    host, port: where to listen; port 0 chooses a free one.
    data_dir: where uploads and results are kept. None: a temporary directory, removed at the end.
    pending_seconds: how long a job stays PENDING.
    running_seconds: how long a job stays RUNNING, at least; it also waits for its output.
    expire_seconds: a job that is not done this long after its creation becomes EXPIRED.
    file_seconds: life of an uploaded file and of a result file.
    file_processing_seconds: how long an uploaded file stays PROCESSING.
    api_keys: the accepted keys; empty accepts any key and none.
    models: names accepted besides those starting with ``gemini-`` or ``text-embedding``.
    max_active_jobs: one more live job is refused with 429.
    max_inline_bytes: largest body of a create call.
    max_file_bytes: largest uploaded file.
    max_storage_bytes: all uploaded files together.
    max_page_size: largest page of a list call.
    refuse_delete_of_live: deleting a job that is not done is refused with 400.
    embedding_dimensions: length of a vector when the request names none.
    answer_threads: how many jobs produce their output at the same time.

    For Vertex AI's side only:

    storage_url: a Cloud Storage server. None: the one in ``STORAGE_EMULATOR_HOST``, if it is set.
    bigquery_url: a BigQuery server. None: the one in ``BIGQUERY_EMULATOR_HOST``, if it is set.
    tokens: the accepted Bearer tokens; empty accepts any.
    vertex_queue_seconds: a job that does not run this long after its creation becomes EXPIRED.
    vertex_run_seconds: a job that runs longer becomes EXPIRED; what it has done is delivered.
    vertex_cancelling_seconds: how long a cancelled job is CANCELLING, at least.
    vertex_max_requests, vertex_max_embeddings: most rows of a job.
    vertex_max_file_bytes: largest input file.
    vertex_shuffle: rows come back in another order, the same on every run.
    vertex_shard_bytes: predictions are split into files of about this size. None: one file.
    """

    host: str = "127.0.0.1"
    port: int = 0
    data_dir: Path | None = None
    pending_seconds: float = 0.0
    running_seconds: float = 0.0
    expire_seconds: float = 48 * HOUR
    file_seconds: float = 48 * HOUR
    file_processing_seconds: float = 0.0
    api_keys: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    max_active_jobs: int = 100
    max_inline_bytes: int = 20 * 1024 * 1024
    max_file_bytes: int = 2 * 1024**3
    max_storage_bytes: int = 20 * 1024**3
    max_page_size: int = 1000
    refuse_delete_of_live: bool = False
    embedding_dimensions: int = 768
    answer_threads: int = 2
    storage_url: str | None = None
    bigquery_url: str | None = None
    tokens: frozenset[str] = frozenset()
    vertex_queue_seconds: float = 72 * HOUR
    vertex_run_seconds: float = 24 * HOUR
    vertex_cancelling_seconds: float = 0.0
    vertex_max_requests: int = 200_000
    vertex_max_embeddings: int = 1_000_000
    vertex_max_file_bytes: int = 1024**3
    vertex_shuffle: bool = True
    vertex_shard_bytes: int | None = None

    def knows_model(self, name: str) -> bool:
        """Tell whether a job may be created for this model, given without ``models/``."""
        return name.startswith(("gemini-", "text-embedding")) or name in self.models
