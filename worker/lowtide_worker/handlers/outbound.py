"""Connections to addresses that users choose: checked, pinned and bounded in time.

A host name is resolved once. If any of its addresses is not public, none is used. Otherwise the connection goes to
an address that was checked; a second lookup might answer differently. TLS still verifies the host by its name. One
deadline bounds everything, from the lookup to the last byte of the answer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Thread

import httpcore2

from lowtide_worker.bounded import BoundedStream
from lowtide_worker.deadlines import Deadline, Overdue

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's own services, seen from any virtual machine
        "192.0.0.0/24",  # reserved for protocol assignments; ipaddress knows only parts of it
        "192.88.99.0/24",  # 6to4 relays
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """Whether an address belongs to the Internet. An address that contains another one is judged by that one."""
    ip = _innermost(ip_address(address))
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return (
        ip.is_global
        and not (ip.is_multicast or ip.is_reserved)
        and not any(ip.version == network.version and ip in network for network in _REFUSED)
    )


def _innermost(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


class OutboundBackend(httpcore2.NetworkBackend):
    """Opens connections for one request."""

    def __init__(self, deadline: Deadline, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._tcp = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connects to the first address of the host that answers. Raises `httpcore2.ConnectError`."""
        addresses = _resolve(host, port, self._deadline.left())
        if not self._allow_private and not all(map(is_public, addresses)):
            raise httpcore2.ConnectError(
                f"{host} has an address that is not public; LOWTIDE_WEBHOOK_ALLOW_PRIVATE=true would allow it"
            )
        for number, address in enumerate(addresses, 1):
            share = self._deadline.left() / (len(addresses) - number + 1)
            try:
                stream = self._tcp.connect_tcp(address, port, share, local_address, socket_options)
                return BoundedStream(stream, self._deadline.left)
            except (httpcore2.NetworkError, httpcore2.TimeoutException):
                if number == len(addresses):
                    raise
        raise httpcore2.ConnectError(f"{host} has no address")


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    """All addresses of a host. The resolver has no timeout, so it runs on a thread that may be abandoned."""
    found: Future[list[str]] = Future()

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result(list(dict.fromkeys(str(address[0]) for *_, address in answers)))
        except (OSError, UnicodeError) as error:
            found.set_exception(httpcore2.ConnectError(f"{host} cannot be resolved: {error}"))

    Thread(target=look_up, daemon=True).start()
    try:
        return found.result(seconds)
    except TimeoutError:
        raise Overdue(f"{host} was not resolved in time") from None
