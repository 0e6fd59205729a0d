"""A service that does not answer at all is an error soon: the clients' own repeats take minutes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lowtide import Settings, SourceError, SpoolError, first_answer
from lowtide.cloud import check_destination, open_source
from lowtide.options import Options
from lowtide.spool import Spool


@pytest.fixture(params=["silent", "refusing"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port that accepts connections and never answers, or that refuses them."""
    monkeypatch.setattr(first_answer, "SECONDS", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen(50)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tester")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        account = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint={url}/a;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
        yield url


@pytest.mark.parametrize("scheme", ["gs", "s3", "az"])
def test_a_spool_that_does_not_answer_is_an_error_soon(scheme: str, server: str) -> None:
    spool = Spool(f"{scheme}://bucket/spool")
    for use in (spool.read, spool.names):
        with pytest.raises(
            SpoolError, match=r"no answer within 0.5 seconds; check the network|Could not connect to the endpoint"
        ):
            use("installation.json")


@pytest.mark.parametrize("place", ["gs://bucket/a.jsonl", "gs://bucket/", "bq://p.set.requests"])
def test_a_source_or_destination_that_does_not_answer_is_an_error_soon(place: str, server: str) -> None:
    settings = Settings(
        _env_file=None,
        vertex_credentials="anonymous",
        vertex_locations=["gs://bucket", "bq://p.set"],
        GOOGLE_CLOUD_PROJECT="p",
    )
    options = Options.checked(settings, model="gemini-3.5-flash", provider="vertex")
    with pytest.raises(SourceError, match=r"no answer within 0.5 seconds; check the network") as missing:
        open_source(place, settings, options)
    assert missing.value.transient
    with pytest.raises(SourceError, match=r"no answer within 0.5 seconds; check the network"):
        check_destination(place, settings)


def test_what_a_call_returns_or_raises_comes_back() -> None:
    assert first_answer.first_answer(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        first_answer.first_answer(lambda: 1 // 0)
