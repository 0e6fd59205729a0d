from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests.cli.helpers import MODEL, Cli, Run, alive, clean_environment, descendants
from tests.ports import quiet_port
from typer.testing import CliRunner

from lowtide import BatchQueue, Kind, ProviderName, extras
from lowtide.extras import install
from lowtide.protocol import keys
from lowtide_cli.app import app
from lowtide_cli.local import Stack
from lowtide_cli.terminal import MissingExtra

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

NOWHERE = "http://127.0.0.1:1"
GOOGLE = {
    "LOWTIDE_PROVIDER": "vertex",
    "GOOGLE_CLOUD_PROJECT": "my-project",
    "LOWTIDE_VERTEX_STORAGE": "gs://shop-jobs/lowtide",
    "LOWTIDE_VERTEX_CREDENTIALS": "anonymous",
}
"""Complete settings. No test may use them to call Google itself."""
CUT_OFF = dict.fromkeys(("GOOGLE_VERTEX_BASE_URL", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"), NOWHERE)
FAST = {
    "LOWTIDE_EMULATOR_PENDING_SECONDS": "0.1",
    "LOWTIDE_EMULATOR_RUNNING_SECONDS": "0.1",
    "LOWTIDE_POLL_FIRST_SECONDS": "0.3",
    "LOWTIDE_POLL_MAX_SECONDS": "0.5",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.25",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Starts all at once, because each takes seconds to start and mostly waits."""
    up = ["up", "--data-dir", "data", "--no-flower", "--one-worker"]
    wanted: dict[str, tuple[list[str], dict[str, str]]] = {
        "local": ([*up, "--emulator"], GOOGLE | FAST),
        "google": (up, GOOGLE | CUT_OFF),
        "mourning": (up, {"LOWTIDE_PROVIDER": "vertex"}),
    }
    found: dict[str, Run] = {}
    try:
        for name, (arguments, more) in wanted.items():
            cli = Cli(clean_environment(), tmp_path_factory.mktemp(name))
            ports = [f"--{part}-port={quiet_port()}" for part in ("redis", "emulator", "storage", "bigquery")]
            found[name] = Run(cli.start(*arguments, *ports, **more), cli)
        yield found
    finally:
        for run in found.values():
            run.process.kill()
            run.process.communicate()


@pytest.fixture(scope="module")
def local(runs: dict[str, Run]) -> tuple[list[str], Cli]:
    """Yields the output of `up` with stand-ins, and the command in a terminal with the variables of its file."""
    up = runs["local"]
    said = up.until_up()
    return said, Cli({**clean_environment(), **up.exports(), "NO_PROXY": "127.0.0.1"}, up.cli.folder)


def test_up_stays_here_with_the_places_that_the_settings_name(local: tuple[list[str], Cli]) -> None:
    said, other = local
    text = "".join(said)
    assert "emulator of Vertex AI" in text
    assert "stand-in" in text
    assert "cost money" not in text
    assert other.environment["LOWTIDE_VERTEX_STORAGE"] == GOOGLE["LOWTIDE_VERTEX_STORAGE"]
    report = other("doctor", "--json").json()
    assert {check["check"] for check in report["checks"]} >= {"Provider", "Bucket", "Dataset", "Locations"}
    assert {check["verdict"] for check in report["checks"]} == {"ok"}


def test_a_batch_from_another_terminal_is_used_in_place_and_told_about(local: tuple[list[str], Cli]) -> None:
    _, other = local
    line = {"key": "kettle", "request": {"contents": [{"role": "user", "parts": [{"text": "Is it blue?"}]}]}}
    place, _ = json.loads(other.environment["LOWTIDE_VERTEX_LOCATIONS"])
    source, destination = f"{place}/monday.jsonl", f"{place}/answers"
    put_object(other.environment["STORAGE_EMULATOR_HOST"], source, json.dumps(line) + "\n")
    done = other("submit", source, "--model", MODEL, "--destination", destination, "--wait")
    batch_id = done.out.strip()
    assert "1 of 1 done: 1 succeeded" in done.err

    read, shown = other.all(["status", batch_id, "--json"], ["status", batch_id])
    status = read.json()
    assert (status["provider"], status["kind"]) == ("vertex", "generation")
    assert (status["sources"], status["destination"]) == ([source], destination)
    assert all(text in shown.out for text in ("vertex", source, destination))
    assert "generation" not in shown.out


def put_object(server: str, uri: str, text: str) -> None:
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    with httpx.Client(trust_env=False, timeout=180) as client:
        url = f"{server}/upload/storage/v1/b/{bucket}/o?uploadType=media"
        client.post(url, params={"uploadType": "media", "name": path}, content=text).raise_for_status()


def test_jobs_lists_those_of_the_provider_that_is_asked_for(local: tuple[list[str], Cli]) -> None:
    _, other = local
    body = {
        "batch": {
            "displayName": "on-gemini",
            "inputConfig": {"requests": {"requests": [{"request": {"contents": [{"parts": [{"text": "x"}]}]}}]}},
        }
    }
    url = f"{other.environment['GOOGLE_GEMINI_BASE_URL']}/v1beta/models/{MODEL}:batchGenerateContent?key=any"
    with httpx.Client(trust_env=False, timeout=180) as client:
        client.post(url, json=body).raise_for_status()
    default, gemini = other.all(["jobs", "--json"], ["jobs", "--json", "--provider", "gemini"])
    assert (default.code, gemini.code) == (0, 0)
    assert "on-gemini" not in {job["display_name"] for job in default.json()}
    assert "on-gemini" in {job["display_name"] for job in gemini.json()}


def test_an_unknown_provider_of_jobs_is_wrong_usage() -> None:
    done = CliRunner().invoke(app, ["jobs", "--provider", "abacus"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "gemini, vertex" in done.stderr


def test_doctor_misses_a_bucket_and_a_dataset(local: tuple[list[str], Cli]) -> None:
    _, other = local
    places = {
        "LOWTIDE_VERTEX_STORAGE": "gs://no-such/lowtide",
        "LOWTIDE_VERTEX_DATASET": "bq://p.none",
    }
    done = other("doctor", "--json", code=1, **places)
    found = findings(done.json())
    assert {name for name, check in found.items() if check["verdict"] == "fail"} == {"Bucket", "Dataset"}
    assert "no bucket no-such" in found["Bucket"]["seen"]
    assert "LOWTIDE_VERTEX_STORAGE" in found["Bucket"]["advice"]
    assert "no dataset bq://p.none" in found["Dataset"]["seen"]
    assert "LOWTIDE_VERTEX_DATASET" in found["Dataset"]["advice"]


def test_a_location_that_is_no_place_is_a_wrong_setting(local: tuple[list[str], Cli]) -> None:
    _, other = local
    done = other("doctor", "--json", code=1, LOWTIDE_VERTEX_LOCATIONS='["shop-data"]')
    [check] = findings(done.json()).values()
    assert (check["check"], check["verdict"]) == ("Settings", "fail")
    assert "LOWTIDE_VERTEX_LOCATIONS: write each place as gs://bucket/folder" in check["seen"]


def findings(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["check"]: check for check in report["checks"]}


class Doorkeeper(BaseHTTPRequestHandler):
    """Runs Cloud Storage and BigQuery that deny all permissions."""

    def do_GET(self) -> None:
        body = json.dumps({"error": {"code": 403, "message": "you may not"}}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def doorkeeper() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Doorkeeper) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_doctor_names_the_role_that_is_missing(lonely_cli: Cli, doorkeeper: str) -> None:
    closed = {"STORAGE_EMULATOR_HOST": doorkeeper, "BIGQUERY_EMULATOR_HOST": doorkeeper, "NO_PROXY": "127.0.0.1"}
    more = {**GOOGLE, "LOWTIDE_PROVIDER": "gemini", "LOWTIDE_VERTEX_DATASET": "bq://my-project.lowtide"}
    found = findings(lonely_cli("doctor", "--json", code=1, **more, **closed).json())
    assert "cannot list" in found["Bucket"]["seen"]
    assert "you may not" in found["Bucket"]["seen"]
    assert "gs://shop-jobs" in found["Bucket"]["advice"]
    assert "roles/storage.objectUser" in found["Bucket"]["advice"]
    assert "roles/bigquery.dataEditor" in found["Dataset"]["advice"]
    assert "LOWTIDE_VERTEX_LOCATIONS is not set" in found["Locations"]["seen"]


def test_up_works_against_google_where_its_settings_are_complete(runs: dict[str, Run]) -> None:
    up = runs["google"]
    said = up.until_up()
    assert any("Vertex AI, project my-project in us-central1" in line for line in said)
    assert up.exports().items() >= (GOOGLE | CUT_OFF).items()
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(up.process.pid)]
    assert not [command for command in commands if "emulator" in command or "fake-gcs" in command]


def test_up_without_settings_brings_stand_ins_and_stops_when_one_dies(runs: dict[str, Run]) -> None:
    up = runs["mourning"]
    up.until_up()
    assert up.exports()["LOWTIDE_VERTEX_STORAGE"].startswith("gs://lowtide-local/")
    mine = descendants(up.process.pid)
    os.kill(up.child("fake-gcs"), signal.SIGKILL)
    assert "Cloud Storage ended unexpectedly" in up.rest()
    assert up.process.wait(60) == 1
    assert not any(map(alive, mine))


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        ([], {"LOWTIDE_PROVIDER": "vertex", "GOOGLE_CLOUD_PROJECT": "p"}, ["LOWTIDE_VERTEX_STORAGE"]),
        (["--no-emulator"], {"LOWTIDE_PROVIDER": "vertex"}, ["GOOGLE_CLOUD_PROJECT", "LOWTIDE_VERTEX_STORAGE"]),
        (["--no-emulator"], {}, ["GEMINI_API_KEY"]),
    ],
)
def test_up_names_what_is_not_set(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], told: list[str]
) -> None:
    said = Cli(clean_environment(), tmp_path)("up", *arguments, code=1, **settings).err
    assert all(word in said for word in told)
    assert ("GEMINI_API_KEY" in said) is ("GEMINI_API_KEY" in told)


@pytest.mark.parametrize(
    ("arguments", "settings", "extra"),
    [
        (["--emulator"], GOOGLE, "vertex-emulator"),
        ([], {"LOWTIDE_PROVIDER": "vertex"}, "vertex-emulator"),
        (["--emulator"], {**GOOGLE, "LOWTIDE_PROVIDER": "gemini"}, "vertex-emulator"),
        ([], GOOGLE, "vertex"),
    ],
)
def test_up_names_the_extra_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], settings: dict[str, str], extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(extras._MODULES, extra, ("no_such_module",))
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["up", "--data-dir", "data", *arguments])
    assert isinstance(done.exception, MissingExtra)
    assert install(extra) in str(done.exception)
    assert not (tmp_path / "data").exists()


def test_a_batch_of_an_older_version_has_the_usual_provider_and_kind(queue: BatchQueue, stack: Stack) -> None:
    batch = queue.submit([{"key": "k", "contents": "Is it old?"}], model=MODEL)
    batch.wait(60)
    with redis.Redis.from_url(stack.exports["LOWTIDE_REDIS_URL"]) as client:
        client.hdel(keys.batch(batch.id), "provider", "kind", "destination", "sources")
    status = batch.status()
    assert (status.provider, status.kind) == (ProviderName.GEMINI, Kind.GENERATION)
    assert (status.destination, status.sources) == (None, [])
