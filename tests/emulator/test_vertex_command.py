"""The command with Vertex AI's API, run as users run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from google.cloud import storage
from tests.emulator.test_command import peak_memory, serving
from tests.emulator.vertex import OVER, PARENT, body
from tests.waiting import wait_until

from lowtide_emulator.cloud import CloudStorageServer

AT_ONCE = ["--pending-seconds", "0", "--running-seconds", "0"]


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_while_seventy_megabytes_come_and_go(
    tmp_path: Path, cloud_storage: CloudStorageServer, bucket: storage.Bucket
) -> None:
    path = tmp_path / "rows.jsonl"
    filler = " ".join(f"w{index}" for index in range(100))
    with path.open("w") as out:
        for index in range(120_000):
            text = f"{index} {filler}"
            out.write(f'{{"key":"k{index}","request":{{"contents":[{{"parts":[{{"text":"{text}"}}]}}]}}}}\n')
    blob = bucket.blob("in.jsonl", chunk_size=8 * 1024 * 1024)
    blob.upload_from_filename(path)
    with serving(*AT_ONCE, env={"LOWTIDE_EMULATOR_STORAGE_URL": cloud_storage.url}) as (http, process):
        small = bucket.blob("small.jsonl")
        small.upload_from_string('{"request":{"contents":[{"parts":[{"text":"x"}]}]}}')
        folder = f"gs://{bucket.name}"

        def run(uri: str) -> str:
            job = http.post(PARENT, json=body(f"{folder}/out", uri)).json()["name"]
            state = wait_until(lambda: (found := http.get(f"/v1/{job}").json()["state"]) in OVER and found)
            assert state == "JOB_STATE_SUCCEEDED"
            return str(job)

        run(f"{folder}/small.jsonl")
        idle = peak_memory(process.pid)
        run(f"{folder}/in.jsonl")
        grown = peak_memory(process.pid) - idle
        assert http.get("/_emulator/stats").json()["rows_answered"] == 120_001
    sizes = [blob.size for blob in bucket.client.list_blobs(bucket) if blob.name.endswith("/predictions.jsonl")]
    assert max(sizes) > 70_000_000
    assert grown < 60_000_000, grown


def test_the_command_can_start_the_servers_it_needs(tmp_path: Path) -> None:
    with serving("--cloud", "--data-dir", str(tmp_path)) as (http, process):
        assert process.stdout is not None
        assert "vertexai=True" in process.stdout.readline()
        for name in ("STORAGE_EMULATOR_HOST=http://127.0.0.1:", "BIGQUERY_EMULATOR_HOST=http://127.0.0.1:"):
            assert process.stdout.readline().startswith(name)
        assert http.get(PARENT).json() == {}
        process.terminate()
        assert process.wait(60) == 0
    assert (tmp_path / "cloud" / "cloud-storage.log").exists()
