"""How a webhook is called: one look-up, the address that was checked, the host's own certificate, one deadline."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.receiver import SECRET, Answer, Receiver
from tests.records import a_batch

from lowtide.protocol import batch_status
from lowtide.spool import Spool
from lowtide.states import BatchState
from lowtide_worker.handlers import BatchEvent, Delivery, Handler, HandlerFailed, Resting, Silent
from lowtide_worker.handlers.webhook import tls_context
from lowtide_worker.runtime import Runtime
from lowtide_worker.settings import WorkerSettings

RESULTS = "batches/bexample/results/00001-0000000.jsonl"
DELIVERY = Delivery("bexample", "bexample-1:0", RESULTS, 1, None, {})
LINES = [b'{"key":"a","response":{"n": 1.50}}', b'{"key":"b"}', b'{"key":"c"}']

MakeHandler = Callable[..., Handler]


@pytest.fixture
def make_handler(tmp_path: Path) -> MakeHandler:
    """Builds the handler of a URL as a worker does, allowed to reach this machine."""
    with Spool(str(tmp_path)).write(RESULTS) as file:
        file.write(b"".join(line + b"\n" for line in LINES))

    def build(url: str, **changes: object) -> Handler:
        given = {
            "spool_url": str(tmp_path),
            "webhook_secrets": {url: SECRET},
            "webhook_allow_private": True,
            "webhook_allow_http": True,
            "webhook_timeout_seconds": 5,
        }
        return Runtime(WorkerSettings.model_validate(given | changes)).handler(url)

    return build


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Host names of the test's own: the answers to each look-up in turn. One too many fails."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        if not answers[host]:
            raise OSError(f"{host} was looked up once too often")
        return [found for address in answers[host].pop(0) for found in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "authority.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        certificate = self._sign("test authority", self._key.public_key(), authority=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, host: str) -> ssl.SSLContext:
        """Returns the TLS context of a server of this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self.directory / f"{host}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self._sign(host, key.public_key()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(self, host: str, key: ec.EllipticCurvePublicKey, *, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host.replace(" ", "-"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that the worker trusts."""
    made = Authority(tmp_path_factory.mktemp("tls"))
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    tls_context.cache_clear()
    yield made
    tls_context.cache_clear()


def test_results_are_passed_through_and_only_those_still_wanted(make_handler: MakeHandler) -> None:
    with Receiver() as shop:
        handler = make_handler(shop.url)
        handler.hand_over(DELIVERY)
        handler.hand_over(DELIVERY._replace(attempt=2, only=[0, 2]))

    assert [hook.data["results"] for hook in shop.hooks] == [
        [json.loads(line) for line in LINES],
        [json.loads(LINES[0]), json.loads(LINES[2])],
    ]
    assert LINES[0] in shop.bodies[0]


def test_a_delivery_of_a_traced_batch_names_its_span(make_handler: MakeHandler) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
    with Receiver() as shop:
        handler = make_handler(shop.url)
        handler.hand_over(DELIVERY._replace(trace=trace))
        handler.hand_over(DELIVERY)

    traced, plain = ({name.lower(): value for name, value in hook.headers.items()} for hook in shop.hooks)
    assert traced.items() >= trace.items()
    assert not trace.keys() & plain.keys()


def test_a_host_is_looked_up_once_and_named_in_the_request(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]]
) -> None:
    resolver["shop.test"] = [["127.0.0.1"]]
    with Receiver() as shop:
        make_handler(f"http://shop.test:{shop.port}/hooks/").hand_over(DELIVERY)

    assert [hook.headers["host"] for hook in shop.hooks] == [f"shop.test:{shop.port}"]
    assert resolver["shop.test"] == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]]
) -> None:
    resolver["shop.test"] = [["93.184.216.34", "127.0.0.1"]]
    with Receiver() as shop:
        handler = make_handler(f"http://shop.test:{shop.port}/", webhook_allow_private=False)
        with pytest.raises(HandlerFailed, match="not public"):
            handler.hand_over(DELIVERY)

    assert not shop.hooks


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"]
)
def test_this_machine_and_its_network_are_refused_under_any_name(make_handler: MakeHandler, host: str) -> None:
    with Receiver() as shop:
        handler = make_handler(f"http://{host}:{shop.port}/", webhook_allow_private=False)
        with pytest.raises(HandlerFailed, match="LOWTIDE_WEBHOOK_ALLOW_PRIVATE"):
            handler.hand_over(DELIVERY)

    assert not shop.hooks


def test_an_address_that_does_not_answer_is_passed_over(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]]
) -> None:
    resolver["shop.test"] = [["127.0.0.2", "127.0.0.1"]]
    with Receiver() as shop:
        make_handler(f"http://shop.test:{shop.port}/").hand_over(DELIVERY)

    assert len(shop.hooks) == 1


def test_a_name_that_does_not_exist_is_said(make_handler: MakeHandler, resolver: dict[str, list[list[str]]]) -> None:
    resolver["shop.test"] = []
    with pytest.raises(HandlerFailed, match=r"shop\.test cannot be resolved"):
        make_handler("http://shop.test/").hand_over(DELIVERY)


def test_tls_checks_the_certificate_against_the_host_name_and_not_the_address(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]], authority: Authority
) -> None:
    resolver["shop.test"] = [["127.0.0.1"]]
    with Receiver(tls=authority.server("shop.test")) as shop:
        make_handler(f"https://shop.test:{shop.port}/").hand_over(DELIVERY)

    assert len(shop.hooks) == 1


@pytest.mark.parametrize("shown", ["other.test", "127.0.0.1"])
def test_another_hosts_certificate_is_refused(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]], authority: Authority, shown: str
) -> None:
    resolver["shop.test"] = [["127.0.0.1"]]
    with (
        Receiver(tls=authority.server(shown)) as shop,
        pytest.raises(HandlerFailed, match=r"CERTIFICATE_VERIFY_FAILED.*not valid for 'shop\.test'"),
    ):
        make_handler(f"https://shop.test:{shop.port}/").hand_over(DELIVERY)

    assert not shop.hooks
    assert not shop.refused


def test_a_certificate_of_an_unknown_authority_is_refused(
    make_handler: MakeHandler, resolver: dict[str, list[list[str]]], tmp_path: Path
) -> None:
    resolver["shop.test"] = [["127.0.0.1"]]
    with (
        Receiver(tls=Authority(tmp_path).server("shop.test")) as shop,
        pytest.raises(HandlerFailed, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        make_handler(f"https://shop.test:{shop.port}/").hand_over(DELIVERY)

    assert not shop.hooks


@pytest.mark.parametrize("answer", [Answer(never=True), Answer(drip=True)], ids=["silent", "a byte at a time"])
def test_the_whole_request_ends_at_its_deadline(make_handler: MakeHandler, answer: Answer) -> None:
    with Receiver(lambda _: answer) as shop:
        handler = make_handler(shop.url, webhook_timeout_seconds=0.5)
        start = time.monotonic()
        with pytest.raises(HandlerFailed, match=r"did not answer within 0\.5 s"):
            handler.hand_over(DELIVERY)

        assert time.monotonic() - start >= 0.5


def test_a_look_up_that_hangs_ends_at_the_deadline_too(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        over.wait()
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(HandlerFailed, match=r"did not answer within 0\.2 s"):
        make_handler("http://shop.test/", webhook_timeout_seconds=0.2).hand_over(DELIVERY)
    over.set()


def test_a_long_answer_is_not_read_to_its_end_nor_repeated(make_handler: MakeHandler) -> None:
    answer = Answer(503, b"no\x1b[31m luck " * 1_000_000)
    with Receiver(lambda _: answer) as shop, pytest.raises(HandlerFailed) as caught:
        make_handler(shop.url).hand_over(DELIVERY)

    assert str(caught.value).startswith(f"{shop.url} answered 503: no?[31m luck no")
    assert len(str(caught.value)) < 300


def test_proxies_of_the_environment_are_not_used(make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Receiver() as shop:
        make_handler(shop.url).hand_over(DELIVERY)

    assert len(shop.hooks) == 1


def test_a_refused_connection_is_a_failure_that_names_the_endpoint_without_its_query(make_handler: MakeHandler) -> None:
    url = "http://127.0.0.1:1/hooks?token=private"
    with pytest.raises(HandlerFailed) as caught:
        make_handler(url).hand_over(DELIVERY)

    assert "http://127.0.0.1:1/hooks: ConnectError" in str(caught.value)
    assert "private" not in str(caught.value)


def test_an_endpoint_that_does_not_answer_rests_from_batch_events(make_handler: MakeHandler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        handler = make_handler(f"http://127.0.0.1:{silent.getsockname()[1]}/", webhook_timeout_seconds=0.2)
        status = batch_status(a_batch("bexample", state=BatchState.COMPLETED), [], [])
        event = BatchEvent("batch.completed", "bexample:finished", 1.0, status, [], 1)
        with pytest.raises(Silent):
            handler.notify(event)
        silent.settimeout(5)
        silent.accept()[0].close()

        with pytest.raises(Resting):
            handler.notify(event)

        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
