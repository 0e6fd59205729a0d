"""Servers of Redis as people run them: with TLS, and with replicas and Sentinels."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lowtide_cli.local import EmbeddedRedis
from lowtide_cli.local.private import private_file
from lowtide_cli.local.processes import Child
from lowtide_cli.local.redis import server_binary
from tests.ports import quiet_port
from tests.waiting import wait_until

needs_tls = pytest.mark.skipif(
    not shutil.which("redis-server"), reason="the embedded server has no TLS: apt-get install redis-server"
)


class Authority:
    """A private authority that signs certificates for hosts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("an authority")
        self.file = folder / "ca.pem"
        made = _certificate(self._name, self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def sign(self, address: str) -> tuple[Path, Path]:
        """The files of a certificate for an IP address, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = _certificate(_name(address), self._name, key.public_key()).add_extension(names, critical=False)
        certificate, secret = self._folder / f"{address}.pem", self._folder / f"{address}.key"
        certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, secret


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    )


class TLSRedis(EmbeddedRedis):
    """Debian's Redis, which speaks TLS only."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.authority = authority
        super().__init__(directory, quiet_port())

    def _child(self) -> Child:
        return Child("Redis", ["redis-server", str(self._configuration)], log=self._log)

    def _configure(self) -> None:
        super()._configure()
        certificate, key = self.authority.sign("127.0.0.1")
        options = {
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": self.authority.file,
            "tls-auth-clients": "optional",
        }
        former = self._configuration.read_text()
        private_file(self._configuration, former + "".join(f"{name} {value}\n" for name, value in options.items()))

    @property
    def bare_url(self) -> str:
        """The URL without any option of TLS."""
        return super().url.replace("redis://", "rediss://", 1)

    @property
    def url(self) -> str:
        """The URL with the file of the authority."""
        return f"{self.bare_url}?ssl_ca_certs={self.authority.file}"


class _Member(EmbeddedRedis):
    """A server that can follow the other one, which has the same password."""

    def _configure(self) -> None:
        super()._configure()
        private_file(self._configuration, f"{self._configuration.read_text()}masterauth {self.password}\n")


class WatchedRedis(EmbeddedRedis):
    """A master, a replica and three Sentinels with a password of their own; it starts and stops them together."""

    NAME = "shop"
    _SENTINELS = 3

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "first", quiet_port())
        self.members = [_Member(directory / name, quiet_port()) for name in ("first", "second")]
        self.members[1].directory.mkdir(parents=True)
        (self.members[1].directory / "password").write_text(self.password)
        self.sentinel_password = secrets.token_urlsafe(12)
        self._folder = directory
        self._ports = [quiet_port() for _ in range(self._SENTINELS)]
        self._sentinels: list[Child] = []

    @property
    def url(self) -> str:
        """The URL of the Sentinels. Nothing listens at the first of them."""
        nodes = [f"127.0.0.1:{port}" for port in (1, *self._ports)]
        first, *others = [f"sentinel://{node}" for node in nodes]
        login = first.replace("//", f"//:{self.password}@", 1)
        options = f"?master_name={self.NAME}&sentinel_password={self.sentinel_password}"
        return ";".join([login, *others]) + "/0" + options

    def start(self, *, timeout: float = 30) -> None:
        try:
            self._start(timeout)
        except BaseException:
            self.stop()
            raise

    def _start(self, timeout: float) -> None:
        for member in self.members:
            member.start(timeout=timeout)
        first, second = self.members
        client(second).execute_command("REPLICAOF", "127.0.0.1", str(first.port))
        wait_until(lambda: client(first).info("replication")["connected_slaves"], what="the replica")
        for number, port in enumerate(self._ports):
            self._sentinels.append(self._sentinel(number, port, first))
        for number in range(self._SENTINELS):
            wait_until(lambda number=number: self._is_ready(number), what="the Sentinels know each other")  # type: ignore[misc]

    def _sentinel(self, number: int, port: int, master: EmbeddedRedis) -> Child:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"requirepass {self.sentinel_password}",
            f"sentinel sentinel-pass {self.sentinel_password}",
            f"sentinel monitor {self.NAME} 127.0.0.1 {master.port} 2",
            f"sentinel auth-pass {self.NAME} {self.password}",
            f"sentinel down-after-milliseconds {self.NAME} 2000",
            f"sentinel failover-timeout {self.NAME} 5000",
        ]
        private_file(folder / "sentinel.conf", "\n".join(lines) + "\n")
        child = Child(
            f"Sentinel {number}",
            [server_binary(), str(folder / "sentinel.conf"), "--sentinel"],
            log=folder / "log",
        )
        child.start()
        return child

    def _asked(self, number: int) -> redis.Redis:
        return redis.Redis(port=self._ports[number], password=self.sentinel_password, protocol=2)

    def _state(self, number: int) -> dict[str, Any]:
        masters: Any = self._asked(number).sentinel_masters()
        state: dict[str, Any] = masters[self.NAME]
        return state

    def _is_ready(self, number: int) -> bool:
        with suppress(redis.RedisError):
            state = self._state(number)
            return bool(state["num-slaves"] and state["num-other-sentinels"] == self._SENTINELS - 1)
        return False

    @property
    def master(self) -> EmbeddedRedis:
        """The server that a Sentinel names as the master."""
        port = self._state(0)["port"]
        return next(member for member in self.members if member.port == port)

    def change_master(self) -> None:
        """Has the Sentinels make the replica the master."""
        wait_until(self._failover_begins, timeout=180, pause=0.5, what="a Sentinel begins a failover")

    def _failover_begins(self) -> bool:
        # A Sentinel refuses until it knows that the replica is good.
        with suppress(redis.ResponseError):
            return bool(self._asked(0).execute_command("SENTINEL", "FAILOVER", self.NAME))
        return False

    def stop(self) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
        for member in self.members:
            member.kill()


def client(server: EmbeddedRedis) -> redis.Redis:
    """A client of one server."""
    return redis.Redis(port=server.port, password=server.password)
