"""The findings of `lowtide doctor`: each says what to do, and a failed one gives exit code 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.command import Command

from lowtide import Settings
from lowtide.protocol import Queue, keys
from lowtide.store import Announcement, announce, connect
from lowtide_cli.commands.doctor.findings import Health
from lowtide_cli.commands.doctor.store import _last_second
from lowtide_cli.local import EmbeddedRedis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def doctor(server: EmbeddedRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    command = Command(
        {"LOWTIDE_REDIS_URL": server.url, "LOWTIDE_SPOOL_URL": str(tmp_path / "spool"), "PATH": "/usr/bin:/bin"},
        tmp_path,
        capsys,
    )

    def run(**more: str) -> dict[str, Mapping[str, str]]:
        said = command("doctor", "--json", GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:1", **more)
        assert (said.code, said.err) == (1, "")  # no key, and no worker
        return {check["check"]: check for check in json.loads(said.out)["checks"]}

    return run


def test_parked_results_are_a_failure_and_say_how_to_deliver_them(server: EmbeddedRedis, doctor: Any) -> None:
    assert doctor()["Parked results"]["verdict"] == "ok"
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        client.zadd(keys.PARKED, {"segment:b0x-1:0": 1.0})
        check = doctor()["Parked results"]
        client.delete(keys.PARKED)
    assert check["verdict"] == "fail"
    assert check["seen"].startswith("1 segment of results")
    assert "lowtide dead-letters redeliver --all" in check["advice"]


def test_a_wrong_setting_is_a_finding_and_no_end(doctor: Any) -> None:
    [check] = doctor(LOWTIDE_MODE="pigeon").values()
    assert (check["check"], check["verdict"]) == ("Settings", "fail")
    assert "LOWTIDE_MODE: this is not file or inline" in check["seen"]
    checks = doctor(GEMINI_API_KEY="a b")
    assert "GEMINI_API_KEY: " in checks["Provider"]["seen"]
    assert checks["Redis"]["verdict"] == "ok"


@pytest.mark.parametrize("url", ["abfs://container/x", "nonsense://x/y"])
def test_a_spool_of_an_unknown_kind_is_a_wrong_setting(doctor: Any, url: str) -> None:
    [check] = doctor(LOWTIDE_SPOOL_URL=url).values()
    assert (check["check"], check["verdict"]) == ("Settings", "fail")
    assert "LOWTIDE_SPOOL_URL: " in check["seen"]
    assert "gs://, s3://, az://" in check["seen"]


def test_a_spool_that_cannot_be_opened_is_a_finding_and_no_end(doctor: Any) -> None:
    checks = doctor(LOWTIDE_SPOOL_URL="/dev/null/spool")
    assert checks["Spool"]["verdict"] == "fail"
    assert "LOWTIDE_SPOOL_URL" in checks["Spool"]["advice"]
    assert checks["Redis"]["verdict"] == "ok"


def test_a_server_that_cannot_say_what_is_on_its_disk_is_a_warning_that_says_what_is_lost() -> None:
    [finding] = _last_second("7.0.15", "everysec")
    assert finding.health is Health.WARN
    assert "a power cut loses up to a second" in finding.seen
    assert "upgrade to Redis 7.2" in finding.advice
    assert _last_second("7.0.15", "always") == []
    assert _last_second("7.2.0", "everysec") == []


def test_what_workers_say_about_themselves_is_a_finding(server: EmbeddedRedis, doctor: Any) -> None:
    queues = [str(queue) for queue in Queue]
    lacking = {"gemini": "set GEMINI_API_KEY"}
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        announce(client, Announcement(worker="a", queues=queues, providers=["vertex"], lacking=lacking))
        without_key = doctor()["Worker"]
        announce(client, Announcement(worker="b", queues=queues, providers=["gemini"]))
        beside_another = doctor()["Worker"]
        client.delete(keys.SERVING)
        announce(client, Announcement(worker="c", problem="LOWTIDE_MODE: not file or inline"))
        not_started = doctor()["Worker"]
        client.delete(keys.SERVING)
    assert (without_key["verdict"], without_key["seen"]) == (
        "fail",
        "a cannot serve provider gemini: set GEMINI_API_KEY",
    )
    assert "on the worker's host" in without_key["advice"]
    assert beside_another == {**without_key, "verdict": "warn"}
    assert (not_started["verdict"], not_started["seen"]) == (
        "fail",
        "c takes no work: LOWTIDE_MODE: not file or inline",
    )
