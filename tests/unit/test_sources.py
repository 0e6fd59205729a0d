"""Sources that cannot be read say what to do, and files are read however they are given."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from lowtide import BatchQueue, InvalidBatch, Settings, SourceError
from lowtide.cloud import open_source
from lowtide.cloud.datasets import endpoint
from lowtide.options import Options
from lowtide.protocol import new_batch_id
from lowtide.spool import RequestReader

PLACES = ["gs://shop-data/requests.jsonl", "bq://my-project.shop.requests"]
LINES = '{"contents": "one"}\n\n{"contents": "two"}\n'
OPENAI_LINES = """{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "one"}]}}

{"custom_id": "b", "body": {"messages": [{"role": "user", "content": "two"}]}}
"""


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, and no question to Google's metadata server for some."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))
    monkeypatch.setenv("PATH", str(tmp_path))


def opened(uri: str, **more: str) -> None:
    settings = Settings(
        _env_file=None,
        GOOGLE_CLOUD_PROJECT="my-project",
        vertex_locations=["gs://shop-data", "bq://my-project.shop"],
        **more,  # type: ignore[arg-type]
    )
    open_source(uri, settings, Options.checked(settings, model="gemini-3.5-flash", provider="vertex"))


@pytest.mark.parametrize("uri", PLACES)
def test_missing_credentials_name_the_login_and_the_setting(uri: str) -> None:
    with pytest.raises(SourceError, match=r"^(gs|bq)://.*: no usable credentials") as caught:
        opened(uri)
    assert "`gcloud auth application-default login`" in str(caught.value)
    assert "LOWTIDE_VERTEX_CREDENTIALS" in str(caught.value)


@pytest.mark.parametrize("uri", PLACES)
def test_a_wrong_file_of_credentials_is_named(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text('{"type": "service_account"}')
    with pytest.raises(InvalidBatch, match=r"LOWTIDE_VERTEX_CREDENTIALS: .*key.json is not the key file"):
        opened(uri, vertex_credentials=str(file))


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        (PLACES[0], "google.cloud.storage"),
        (PLACES[1], "google.cloud.bigquery"),
        *((uri, "google.api_core.exceptions") for uri in PLACES),
    ],
)
def test_a_missing_package_names_the_extra(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SourceError, match="install the extra vertex of lowtide"):
        opened(uri)


@pytest.mark.parametrize("packed", [bytes, gzip.compress, zstd.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("text", [LINES, OPENAI_LINES], ids=["REST", "OpenAI"])
def test_an_open_file_is_read_like_one_with_a_name(text: str, packed: Callable[[bytes], bytes], tmp_path: Path) -> None:
    queue = BatchQueue(Settings(_env_file=None, spool_url=str(tmp_path / "spool")))
    options = Options.checked(queue.settings, model="gemini-3.5-flash", key_field="#")
    content = packed(text.encode("utf-8-sig"))
    (tmp_path / "requests").write_bytes(content)
    read = []
    for requests in (io.BytesIO(content), io.BufferedReader(io.BytesIO(content)), tmp_path / "requests"):
        batch_id = new_batch_id()
        queue.receiver.take(batch_id, options, requests)
        read.append([line.key for line in RequestReader(queue._spool, batch_id).all_keys()])
    assert read == [["1", "3"]] * 3


@pytest.mark.parametrize("uri", [PLACES[1], "projects/my-project/locations/global/datasets/1"])
def test_no_table_is_asked_for_where_jobs_can_use_none(uri: str) -> None:
    with pytest.raises(InvalidBatch, match="jobs of the location global can use no BigQuery tables"):
        opened(uri, GOOGLE_CLOUD_LOCATION="global")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"GOOGLE_CLOUD_LOCATION": "europe-west4"}, "https://europe-west4-aiplatform.googleapis.com"),
        ({"GOOGLE_CLOUD_LOCATION": "us"}, "https://aiplatform.us.rep.googleapis.com"),
        ({"GOOGLE_CLOUD_LOCATION": "global"}, "https://aiplatform.googleapis.com"),
        ({"GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:1/"}, "http://127.0.0.1:1"),
    ],
)
def test_each_location_has_its_endpoint(settings: dict[str, str], url: str) -> None:
    assert endpoint(Settings(_env_file=None, **settings)) == url  # type: ignore[arg-type]


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nothing.jsonl"
    file.write_text("\n\n")
    queue = BatchQueue(Settings(_env_file=None, spool_url=str(tmp_path / "spool")))
    options = Options.checked(queue.settings, model="gemini-3.5-flash")
    with pytest.raises(InvalidBatch, match=r"nothing\.jsonl is empty: submit at least one request"):
        queue.receiver.take(new_batch_id(), options, str(file))
    with file.open("rb") as opened, pytest.raises(InvalidBatch, match=r"nothing\.jsonl is empty"):
        queue.receiver.take(new_batch_id(), options, opened)
    with pytest.raises(InvalidBatch, match=r"^the batch is empty"):
        queue.receiver.take(new_batch_id(), options, [])


def test_a_column_belongs_to_a_table(tmp_path: Path) -> None:
    queue = BatchQueue(Settings(_env_file=None, spool_url=str(tmp_path / "spool")))
    options = Options.checked(queue.settings, model="gemini-3.5-flash", key_column="sku")
    with pytest.raises(InvalidBatch, match="key_column: only a table has columns"):
        queue.receiver.take(new_batch_id(), options, [])
