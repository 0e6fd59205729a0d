"""Redis by TLS, with a private authority: everything works, and whatever does not fit is an error that says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from tests import fork_server
from tests.command import Command
from tests.integration.blurbs import MODEL, blurbs
from tests.integration.flower_server import LOGIN, flower
from tests.ports import quiet_port
from tests.redis_servers import Authority, TLSRedis, needs_tls
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Settings, StoreUnavailable
from lowtide.protocol import keys, sender
from lowtide_cli.local import EmbeddedRedis, kill

pytestmark = needs_tls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> TLSRedis:
    folder = tmp_path_factory.mktemp("tls")
    return TLSRedis(folder / "redis", Authority(folder / "ours"))


@pytest.fixture(scope="module")
def stack(server: TLSRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.redis_server = server
    with stack:
        yield stack


def connects(connection: Connection) -> None:
    """Connects and closes. Else the garbage collector may find its socket before the client that would close it."""
    with connection:
        connection.ensure_connection(max_retries=2)


def refusal(stack: Stack, url: str, *, seconds: float = 10) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        stack.queue(redis_url=url, redis_timeout_seconds=seconds).list(page_size=1)
    said = str(caught.value)
    assert stack.redis_server.password not in said
    return said


def test_a_batch_is_done_and_delivered_by_tls(
    stack: Stack, server: TLSRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = stack.worker("-P", "threads", "-c", "4")

    batch = stack.queue().submit(blurbs(3), model=MODEL, on_result="stream://shop")

    assert batch.wait(timeout=180).succeeded == 3
    wait_until(lambda: stack.redis.xlen(keys.stream("shop")), what="the stream has the results")
    assert "insecure" not in worker.text
    doctor = Command(stack.env, stack.directory, capsys)("doctor")
    assert doctor.code == 0, doctor.all
    assert str(server.authority.file) in doctor.out


def test_a_certificate_of_another_authority_is_refused_by_producers_and_doctor(
    stack: Stack, server: TLSRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = Authority(tmp_path / "others").file
    for url in (server.bare_url, f"{server.bare_url}?ssl_ca_certs={others}"):
        said = refusal(stack, url)
        assert "cannot be reached by TLS: its certificate is not accepted (" in said
        assert "?ssl_ca_certs=/etc/ssl/redis-ca.pem" in said
        doctor = Command(stack.env, stack.directory, capsys)("doctor", LOWTIDE_REDIS_URL=url)
        assert doctor.code == 1
        assert "its certificate is not accepted" in " ".join(doctor.out.split())


def test_a_worker_does_not_work_for_a_server_whose_certificate_it_cannot_verify(stack: Stack, server: TLSRedis) -> None:
    log = stack.directory / "distrustful.log"
    process = fork_server.shared("celery").start(
        ["-A", "lowtide_worker", "worker", "-P", "solo", "-l", "info", "--without-mingle"],
        env=stack.env | {"LOWTIDE_REDIS_URL": server.bare_url},
        cwd=stack.directory,
        streams=(os.devnull, log, log),
    )
    try:
        wait_until(lambda: log.exists() and "CERTIFICATE_VERIFY_FAILED" in log.read_text(), what="it logs the reason")
    finally:
        kill(process)
    assert " ready." not in log.read_text()
    assert server.password not in log.read_text()


def test_celery_verifies_the_certificate_whatever_the_url_says_of_tls(server: TLSRedis, stack: Stack) -> None:
    settings = Settings(_env_file=None, redis_url=server.bare_url)
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings.broker_config())
    for connection in (
        Connection(settings.redis_url.get_secret_value()),
        app.connection_for_write(),
        sender(server.bare_url).connection_for_write(),
    ):
        with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            connection.ensure_connection(max_retries=1, interval_start=0)
    unverified = Settings(_env_file=None, redis_url=f"{server.bare_url}?ssl_cert_reqs=none")
    for settings in (unverified, Settings(_env_file=None, redis_url=server.url)):
        app.conf.update(settings.broker_config())
        for connection in (app.connection_for_write(), Connection(settings.redis_url.get_secret_value())):
            connects(connection)


@pytest.mark.usefixtures("stack")  # it starts the server
def test_celery_goes_on_to_the_next_broker_of_a_list_and_verifies_its_certificate(server: TLSRedis) -> None:
    options = f"?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={server.authority.file}"
    first = f"rediss://127.0.0.1:{quiet_port()}/0"

    connects(sender(f"{first}{options};{server.bare_url}{options}").connection_for_write())

    with pytest.raises(OperationalError):
        sender(f"{first};{server.bare_url}").connection_for_write().ensure_connection(max_retries=2, interval_start=0)


def test_flower_shows_batches_queues_and_metrics_by_tls(stack: Stack) -> None:
    batch = stack.queue().submit(blurbs(1), model=MODEL)
    with (
        flower(stack, FLOWER_BASIC_AUTH=":".join(LOGIN)) as url,
        httpx.Client(base_url=url, auth=LOGIN, trust_env=False, timeout=180) as browser,
    ):
        assert batch.id in browser.get("/lowtide").text
        assert "lowtide_store_up 1.0" in browser.get("/metrics").text
        wait_until(lambda: "lowtide.jobs" in browser.get("/broker").text, what="Flower reads the queues")


def test_a_host_that_the_certificate_does_not_name_is_refused(stack: Stack, server: TLSRedis) -> None:
    other = server.url.replace("127.0.0.1", "localhost", 1)

    assert "its certificate is not accepted (Hostname mismatch" in refusal(stack, other)
    stack.queue(redis_url=f"{other}&ssl_check_hostname=false").list(page_size=1)


def test_a_file_of_tls_that_is_missing_is_named(stack: Stack, server: TLSRedis) -> None:
    said = refusal(stack, f"{server.bare_url}?ssl_ca_certs=/nowhere/ca.pem")

    assert said.endswith("by TLS: the file of ssl_ca_certs cannot be read; correct its path in LOWTIDE_REDIS_URL")


def test_tls_at_a_port_without_it_is_an_error_that_says_so_and_so_is_the_reverse(
    stack: Stack, server: TLSRedis, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "plain") as plain:
        url = f"{plain.url.replace('redis://', 'rediss://')}?ssl_ca_certs={server.authority.file}"
        assert "LOWTIDE_REDIS_URL (with redis://, if it has no TLS)" in refusal(stack, url, seconds=1)
    plain_url = server.bare_url.replace("rediss://", "redis://")
    assert "LOWTIDE_REDIS_URL (with rediss://, if it expects TLS)" in refusal(stack, plain_url)


def test_a_server_that_asks_for_a_certificate_gets_the_one_of_the_url(stack: Stack, server: TLSRedis) -> None:
    certificate, key = server.authority.sign("127.0.0.2")
    stack.redis.config_set("tls-auth-clients", "yes")
    try:
        assert "give a certificate of your own by ssl_certfile and ssl_keyfile" in refusal(stack, server.url)
        own = f"{server.url}&ssl_certfile={certificate}&ssl_keyfile={key}"
        stack.queue(redis_url=own).list(page_size=1)
        connects(Connection(own))
    finally:
        stack.redis.config_set("tls-auth-clients", "optional")
