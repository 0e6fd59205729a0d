from __future__ import annotations

from pathlib import Path

import pytest
import redis
from tests.cli.helpers import alive

from lowtide_cli.embedded import EmbeddedRedis
from lowtide_cli.errors import CommandError
from lowtide_cli.processes import free_port


def test_data_survives_a_kill_on_the_same_port(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        url = server.url
        client.set("tide", "low")
        server.kill()
        assert server.pid is None
        server.start()
        assert server.url == url
        assert client.get("tide") == b"low"


def test_it_never_evicts_and_writes_everything_down(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        info = client.info()
        assert info["maxmemory_policy"] == "noeviction"
        assert info["aof_enabled"] == 1


def test_it_is_gone_after_the_block(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        pid = server.pid
        assert pid is not None
        assert alive(pid)
    assert not alive(pid)


def test_two_servers_cannot_share_a_folder(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path), pytest.raises(CommandError, match="already runs"):
        EmbeddedRedis(tmp_path).start()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as server, pytest.raises(CommandError, match="Redis ended"):
        EmbeddedRedis(tmp_path / "two", server.port).start()


def test_a_free_port_is_the_preferred_one_if_that_is_free(tmp_path: Path) -> None:
    port = free_port()
    assert free_port(port) == port
    with EmbeddedRedis(tmp_path) as server:
        assert free_port(server.port) != server.port
