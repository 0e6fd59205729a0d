"""The batch side of the Gemini Developer API: batches of inline rows or of uploaded files, and the Files API."""

from __future__ import annotations

from lowtide_emulator.gemini.batch_api import BatchApi
from lowtide_emulator.gemini.files_api import FilesApi
from lowtide_emulator.gemini.seeding import FileSeed, seed_batch, seed_file
from lowtide_emulator.gemini.work import GeminiWork

__all__ = ["BatchApi", "FileSeed", "FilesApi", "GeminiWork", "seed_batch", "seed_file"]
