"""The findings of `lowtide doctor`: each says what to do, and a failed one gives exit code 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.command import Command

from lowtide import BatchState, BatchStatus, Settings
from lowtide.budgets import budgets_digest
from lowtide.protocol import Queue, keys
from lowtide.store import NOT_STORED, REFUSED, Announcement, announce, connect
from lowtide_cli.commands.doctor.findings import Health
from lowtide_cli.commands.doctor.handlers import _refused, _unstored
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


def test_a_key_that_another_program_has_written_to_is_a_failure_that_names_it(
    server: EmbeddedRedis, doctor: Any
) -> None:
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        client.set(keys.live("gemini"), "x")
        check = doctor()["Redis"]
        client.delete(keys.live("gemini"))
    assert check["verdict"] == "fail"
    assert "lowtide:live:gemini of Redis is no sorted set any more" in check["seen"]


def test_a_batch_whose_results_cannot_be_stored_is_a_failure_with_its_name() -> None:
    well, stuck = (
        BatchStatus(id=name, state=BatchState.RUNNING, model="m", total=4, problems=[problem], created_at=17.5)
        for name, problem in (("b0well", "job 1 will be retried: x"), ("b0stuck", f"{NOT_STORED}no index"))
    )

    [finding] = _unstored([well, stuck])

    assert finding.health is Health.FAIL
    assert "b0stuck: results cannot be stored: no index" in finding.seen
    assert "lowtide cancel b0stuck" in finding.advice


def test_a_batch_for_which_redis_refuses_a_command_is_a_failure_with_the_reason() -> None:
    problem = f"job 1 will be retried: {REFUSED}WRONGTYPE Operation"
    batches = [
        BatchStatus(id=name, state=BatchState.RUNNING, model="m", total=4, problems=problems, created_at=17.5)
        for name, problems in (("b0well", ["job 1 will be retried: x"]), ("b0one", [problem]), ("b0two", [problem]))
    ]

    [finding] = _refused(batches)

    assert finding.health is Health.FAIL
    assert finding.seen == "2 batches make no progress, because Redis refuses a command: WRONGTYPE Operation"
    assert "lowtide status b0one" in finding.advice


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


def test_a_worker_with_other_budgets_is_a_problem(server: EmbeddedRedis, doctor: Any) -> None:
    queues = [str(queue) for queue in Queue]
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        announce(client, Announcement(worker="a", queues=queues, providers=["gemini"], budgets=budgets_digest({})))
        assert "Budgets" not in doctor()
        client.delete(keys.SERVING)
        announce(client, Announcement(worker="b", queues=queues, providers=["gemini"], budgets="0" * 16))
        found = doctor()["Budgets"]
        client.delete(keys.SERVING)
    assert found["verdict"] == "fail"
    assert "LOWTIDE_BUDGETS differs from that of b" in found["seen"]


def test_a_budget_of_a_label_that_no_batch_has_is_a_warning_that_names_it(server: EmbeddedRedis, doctor: Any) -> None:
    budgets = '{"team=catalog": {"day": 1}, "team=catalgo": {"day": 1}}'
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        client.hset(keys.costs(datetime.now(UTC).date() - timedelta(days=399)), "label|team=catalog|requests", 1)
        found = doctor(LOWTIDE_BUDGETS=budgets)["Budgets"]
        client.hset(keys.costs(datetime.now(UTC).date()), "label|team=catalgo|requests", 1)
        assert "Budgets" not in doctor(LOWTIDE_BUDGETS=budgets)
    assert found["verdict"] == "warn"
    assert found["seen"].endswith("for batches with the label team=catalgo")


def test_a_terminal_without_a_key_is_a_warning_while_workers_serve_the_provider(
    server: EmbeddedRedis, doctor: Any
) -> None:
    queues = [str(queue) for queue in Queue]
    without_workers = doctor()["Provider"]
    with connect(Settings(redis_url=SecretStr(server.url))) as client:
        announce(client, Announcement(worker="a", queues=queues, providers=["gemini"]))
        beside_workers = doctor()["Provider"]
        with_a_key = doctor(GEMINI_API_KEY="unused")["Provider"]
        client.delete(keys.SERVING)
    assert [one["verdict"] for one in (without_workers, beside_workers, with_a_key)] == ["fail", "warn", "fail"]
    assert "`lowtide jobs` and `lowtide hooks`" in beside_workers["advice"]


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
