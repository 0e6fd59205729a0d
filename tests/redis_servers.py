"""Servers of Redis as people run them: with TLS, and with replicas and Sentinels."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lowtide_cli.local import EmbeddedRedis
from lowtide_cli.local.private import private_file
from lowtide_cli.local.processes import Child

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
        super().__init__(directory)

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
