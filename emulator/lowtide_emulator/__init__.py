"""A Gemini batch service on the local machine: free, fast, and with every fault that a test asks for.

It serves the batch side of the Gemini Developer API as `google-genai` 3.4.0 calls it, has a clock of its own, and
injects faults by rules. Tests run it in their own process::

    from lowtide_emulator import Emulator, Settings

    with Emulator(Settings(pending_seconds=60, running_seconds=300)) as emulator:
        client = genai.Client(api_key="any", http_options={"base_url": emulator.url})
        job = client.batches.create(model="gemini-3.5-flash", src=requests)
        emulator.advance(360)

The same port also serves Vertex AI's batch prediction. Its jobs read and write Cloud Storage or BigQuery; the module
`cloud` starts stand-ins for both, with the extra `vertex-emulator`::

    from lowtide_emulator.cloud import CloudStorageServer

    with CloudStorageServer(folder) as storage, Emulator(storage_url=storage.url) as emulator:
        client = genai.Client(
            vertexai=True, project="any", location="us-central1",
            credentials=google.oauth2.credentials.Credentials(token="any"),
            http_options={"base_url": emulator.url},
        )

The command `lowtide-emulator serve` runs it as a process.
"""

from __future__ import annotations

from importlib.util import find_spec

from lowtide_emulator.extras import install

if any(find_spec(module) is None for module in ("cryptography", "jwt", "starlette", "uvicorn")):
    raise ImportError(f"the emulator needs an extra that is not installed: {install('emulator')}")

from lowtide_emulator.answering import Answer, RowError
from lowtide_emulator.engine import JobRecord, SeedError, StatsSnapshot, Tokens
from lowtide_emulator.faults import FaultRecord, RuleError
from lowtide_emulator.server import Emulator
from lowtide_emulator.settings import Settings

__all__ = [
    "Answer",
    "Emulator",
    "FaultRecord",
    "JobRecord",
    "RowError",
    "RuleError",
    "SeedError",
    "Settings",
    "StatsSnapshot",
    "Tokens",
]
