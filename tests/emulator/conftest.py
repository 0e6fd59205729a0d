from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.oauth2.credentials import Credentials
from tests.emulator.helpers import PENDING, RUNNING
from tests.emulator.vertex import World

from lowtide_emulator import Emulator, Settings
from lowtide_emulator.cloud import CloudStorageServer


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator(Settings(pending_seconds=PENDING, running_seconds=RUNNING)) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def shared_client(shared_emulator: Emulator) -> Iterator[genai.Client]:
    with genai.Client(api_key="any", http_options={"base_url": shared_emulator.url}) as client:
        yield client


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Iterator[Emulator]:
    yield shared_emulator
    shared_emulator.answer = None
    shared_emulator.reset()


@pytest.fixture
def client(emulator: Emulator, shared_client: genai.Client) -> genai.Client:
    return shared_client


@pytest.fixture
def http(emulator: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.url, timeout=180, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def cloud_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStorageServer]:
    with CloudStorageServer(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture(scope="session")
def storage_client(cloud_storage: CloudStorageServer) -> Iterator[storage.Client]:
    options = {"api_endpoint": cloud_storage.url}
    client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options)
    yield client
    client.close()


@pytest.fixture
def bucket(storage_client: storage.Client) -> storage.Bucket:
    return storage_client.create_bucket(f"bucket-{uuid4().hex}")


@pytest.fixture(scope="session")
def shared_vertex(cloud_storage: CloudStorageServer) -> Iterator[Emulator]:
    settings = Settings(pending_seconds=PENDING, running_seconds=RUNNING)
    with Emulator(settings, storage_url=cloud_storage.url) as emulator:
        yield emulator


@pytest.fixture
def world(shared_vertex: Emulator, bucket: storage.Bucket) -> Iterator[World]:
    with httpx.Client(base_url=shared_vertex.url, timeout=180, trust_env=False) as http:
        yield World(shared_vertex, http, bucket)
    shared_vertex.answer = None
    shared_vertex.reset()


@pytest.fixture
def vertex_client(shared_vertex: Emulator) -> Iterator[genai.Client]:
    with genai.Client(
        vertexai=True,
        project="p",
        location="us-central1",
        credentials=Credentials(token="fake"),
        http_options={"base_url": shared_vertex.url},
    ) as client:
        yield client
