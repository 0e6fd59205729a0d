"""Object stores on this machine: fake-gcs-server, moto's S3 and, where it is installed, Azurite."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lowtide_emulator.cloud import CloudStorageServer
from tests.ports import quiet_port
from tests.waiting import wait_until

STORES = ("gs", "s3", "az")
AZURITE = shutil.which("azurite-blob")
"""Azurite comes from another registry than Python's packages, so that it may be missing."""

_ACCOUNT = "devstoreaccount1"
_LOCAL = "127.0.0.1"


@contextmanager
def object_store(scheme: str, folder: Path) -> Iterator[dict[str, str]]:
    """Runs an object store, and yields the variables by which clients find it."""
    match scheme:
        case "gs":
            server = CloudStorageServer(folder)
            server.start()
            try:
                yield {"STORAGE_EMULATOR_HOST": server.url}
            finally:
                server.stop()
        case "s3":
            port = quiet_port()
            command = [sys.executable, "-m", "moto.server", "-H", _LOCAL, "-p", str(port)]
            with _running(command, folder / "s3.log", f"http://{_LOCAL}:{port}/moto-api/"):
                yield {
                    "AWS_ENDPOINT_URL": f"http://{_LOCAL}:{port}",
                    "AWS_ACCESS_KEY_ID": "tester",
                    "AWS_SECRET_ACCESS_KEY": "tester",
                    "AWS_REGION": "us-east-1",
                    "AWS_EC2_METADATA_DISABLED": "true",
                }
        case "az":
            port = quiet_port()
            key = base64.b64encode(b"a key of this test alone").decode()
            options = ["--blobHost", _LOCAL, "--blobPort", str(port), "--location", str(folder / "azure")]
            options += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
            os.environ["AZURITE_ACCOUNTS"] = f"{_ACCOUNT}:{key}"
            url = f"http://{_LOCAL}:{port}/{_ACCOUNT}"
            with _running([str(AZURITE), *options], folder / "azure.log", url):
                parts = ("DefaultEndpointsProtocol=http", f"AccountName={_ACCOUNT}", f"AccountKey={key}")
                yield {"AZURE_STORAGE_CONNECTION_STRING": ";".join((*parts, f"BlobEndpoint={url}", ""))}


def new_bucket(scheme: str) -> str:
    """Makes a bucket in the store that this process's variables name; returns its URL."""
    name = f"lowtide-{uuid4().hex[:12]}"
    match scheme:
        case "gs":
            from google.cloud import storage

            storage.Client(project="lowtide-test").create_bucket(name)
        case "s3":
            import boto3

            boto3.session.Session().client("s3").create_bucket(Bucket=name)
        case "az":
            from azure.storage.blob import BlobServiceClient

            connection = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
            BlobServiceClient.from_connection_string(connection).create_container(name)
    return f"{scheme}://{name}"


@contextmanager
def _running(command: Sequence[str], log: Path, url: str) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or _answers(url), what=f"{command[0]}; see {log}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
