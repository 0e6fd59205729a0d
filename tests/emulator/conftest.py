from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from google import genai
from tests.emulator.helpers import PENDING, RUNNING

from lowtide_emulator import Emulator, Settings


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
    with httpx.Client(base_url=emulator.url, timeout=30, trust_env=False) as client:
        yield client
