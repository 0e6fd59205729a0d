"""The Files API."""

from __future__ import annotations

import base64
import hashlib
import io

import httpx
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from tests.emulator.helpers import jsonl, numbered, run_file, upload

from lowtide_emulator import Emulator

CHUNK = 8 * 1024 * 1024


def begin(http: httpx.Client, **fields: object) -> str:
    reply = http.post(
        "/upload/v1beta/files",
        json={"file": {"mime_type": "jsonl", **fields}},
        headers={"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"},
    )
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-goog-upload-url"])


def send(http: httpx.Client, url: str, data: bytes, offset: int, command: str) -> httpx.Response:
    headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
    return http.post(url, content=data, headers=headers)


def test_the_sdk_uploads_in_chunks_and_reads_the_record(emulator: Emulator, client: genai.Client) -> None:
    data = b"x" * (2 * CHUNK + 1)
    uploaded = client.files.upload(
        file=io.BytesIO(data),
        config={"mime_type": "jsonl", "display_name": "rows", "name": "my-rows"},
    )
    assert emulator.stats().calls["files.upload.chunk"] == 3
    found = client.files.get(name="files/my-rows")
    assert found == uploaded
    assert found.size_bytes == len(data)
    assert found.display_name == "rows"
    assert emulator.files() == ["rows"]
    assert found.state == types.FileState.ACTIVE
    assert found.sha256_hash == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert found.expiration_time is not None
    assert found.create_time is not None
    assert (found.expiration_time - found.create_time).total_seconds() == 48 * 3600


def test_an_empty_file_can_be_uploaded(client: genai.Client) -> None:
    assert client.files.get(name=upload(client, b"")).name is not None


def test_a_path_can_be_uploaded(client: genai.Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("in") / "rows.jsonl"
    path.write_bytes(jsonl(numbered(3)))
    uploaded = client.files.upload(file=path, config={"mime_type": "application/jsonl"})
    assert uploaded.size_bytes == path.stat().st_size


def test_files_are_listed_in_pages_newest_first(client: genai.Client) -> None:
    names = [upload(client, b"x") for _ in range(5)]
    listed = list(client.files.list(config={"page_size": 2}))
    assert [file.name for file in listed] == names[::-1]


def test_a_deleted_file_is_gone(client: genai.Client) -> None:
    name = upload(client, b"x")
    client.files.delete(name=name)
    with pytest.raises(errors.ClientError) as caught:
        client.files.get(name=name)
    assert caught.value.code == 403


def test_a_file_expires_after_48_hours(emulator: Emulator, http: httpx.Client, client: genai.Client) -> None:
    name = upload(client, b"x")
    emulator.advance(48 * 3600)
    assert http.get(f"/v1/{name}").status_code == 403
    assert http.get("/v1/files").json() == {}


def test_a_chunk_may_be_sent_again_when_its_reply_was_lost(http: httpx.Client) -> None:
    url = begin(http)
    assert send(http, url, b"abc", 0, "upload").headers["x-goog-upload-status"] == "active"
    assert send(http, url, b"abc", 0, "upload").headers["x-goog-upload-size-received"] == "3"
    last = send(http, url, b"def", 3, "upload, finalize")
    assert last.headers["x-goog-upload-status"] == "final"
    again = send(http, url, b"def", 3, "upload, finalize")
    assert again.json() == last.json()
    assert last.json()["file"]["sizeBytes"] == "6"
    expected = base64.b64encode(hashlib.sha256(b"abcdef").digest()).decode()
    assert last.json()["file"]["sha256Hash"] == expected


def test_a_chunk_at_the_wrong_place_is_refused(http: httpx.Client) -> None:
    url = begin(http)
    assert send(http, url, b"abc", 7, "upload").status_code == 400


def test_an_upload_nobody_began_is_refused(http: httpx.Client) -> None:
    assert send(http, "/upload/v1/files?upload_id=x", b"abc", 0, "upload").status_code == 404


def test_an_upload_can_be_asked_how_far_it_is(http: httpx.Client) -> None:
    url = begin(http)
    send(http, url, b"abc", 0, "upload")
    assert send(http, url, b"", 0, "query").headers["x-goog-upload-size-received"] == "3"


def test_the_upload_url_is_on_the_host_that_was_asked(emulator: Emulator) -> None:
    url = emulator.url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=url, trust_env=False) as http:
        assert begin(http).startswith(f"{url}/upload/v1beta/files?")


@pytest.mark.parametrize("name", ["Upper", "-dash", "dash-", "x" * 41, "a_b"])
def test_a_bad_file_name_is_refused(http: httpx.Client, name: str) -> None:
    reply = http.post(
        "/upload/v1/files",
        json={"file": {"name": f"files/{name}", "mimeType": "jsonl"}},
        headers={"X-Goog-Upload-Command": "start"},
    )
    assert reply.status_code == 400


def test_a_name_can_be_taken_only_once(http: httpx.Client) -> None:
    send(http, begin(http, name="files/mine"), b"x", 0, "upload, finalize")
    reply = http.post(
        "/upload/v1/files",
        json={"file": {"name": "files/mine", "mimeType": "jsonl"}},
        headers={"X-Goog-Upload-Command": "start"},
    )
    assert reply.status_code == 409


@pytest.mark.parametrize("mime_type", ["bad/mime_type", "application/octet-stream", "rows", ""])
def test_an_unsupported_mime_type_is_refused(client: genai.Client, http: httpx.Client, mime_type: str) -> None:
    reply = http.post(
        "/upload/v1/files", json={"file": {"mimeType": mime_type}}, headers={"X-Goog-Upload-Command": "start"}
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == f"Unsupported MIME type: {mime_type}"


def test_objects_of_cloud_storage_are_registered(client: genai.Client) -> None:
    reply = client.files.register_files(
        auth=Credentials(token="fake"), uris=["gs://bucket/a.jpg", "gs://bucket/more/in.jsonl"]
    )
    assert reply.files is not None
    assert [file.mime_type for file in reply.files] == ["image/jpeg", "application/jsonl"]
    found = client.files.get(name=str(reply.files[0].name))
    assert found.source == types.FileSource.REGISTERED
    assert found.state == types.FileState.ACTIVE
    with pytest.raises(errors.ClientError, match="registered"):
        client.batches.create(model="gemini-3.5-flash", src=str(reply.files[1].name))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"uris": []}, "uris is not specified"),
        ({"uris": ["gs://bucket"]}, "uris[0]: 'gs://bucket' is not gs://bucket/object"),
        ({"uris": ["gs://bucket/a.jpg", "https://example.com/a"]}, "uris[1]"),
        ({"uris": ["gs://bucket/what"]}, "Unsupported MIME type"),
        ({"uris": "gs://bucket/a.jpg"}, "uris"),
        ({"uri": "gs://bucket/a.jpg"}, 'Unknown name "uri"'),
    ],
)
def test_what_cannot_be_registered_is_refused(
    emulator: Emulator, http: httpx.Client, body: dict[str, object], words: str
) -> None:
    reply = http.post("/v1/files:register", json=body, headers={"Authorization": "Bearer fake"})
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]
    assert emulator.files() == []


def test_nothing_is_registered_without_a_token(http: httpx.Client) -> None:
    assert http.post("/v1/files:register", json={"uris": ["gs://bucket/a.jpg"]}).status_code == 401


def test_uploaded_files_cannot_be_downloaded(client: genai.Client, http: httpx.Client) -> None:
    assert http.get(f"/v1/{upload(client, b'x')}:download").status_code == 400


def test_results_can_be_read_from_the_middle_on_both_paths(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(5)))
    result = operation["response"]["responsesFile"]
    whole = http.get(f"/v1/{result}:download", params={"alt": "media"}).content
    other = http.get(f"/download/v1beta/{result}:download", params={"alt": "media"}).content
    part = http.get(f"/v1/{result}:download", headers={"Range": "bytes=10-"})
    assert other == whole
    assert part.status_code == 206
    assert part.content == whole[10:]
    assert part.headers["content-range"] == f"bytes 10-{len(whole) - 1}/{len(whole)}"
    assert http.get(f"/v1/{result}:download", headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
