from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from tests.cli.helpers import alive
from tests.ports import quiet_port

from lowtide_cli.local import EmbeddedRedis, free_port, server_binary
from lowtide_cli.terminal import CommandError


def test_data_survives_a_kill_on_the_same_port(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, quiet_port()) as server, redis.Redis.from_url(server.url) as client:
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
    port = quiet_port()
    assert free_port(port) == port
    with EmbeddedRedis(tmp_path) as server:
        assert free_port(server.port) != server.port


def test_nobody_else_can_read_its_data_or_speak_to_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with EmbeddedRedis(tmp_path / "data" / "redis") as server:
            assert server.password not in Path(f"/proc/{server.pid}/cmdline").read_text()
            with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
    finally:
        os.umask(before)
    for folder in (server.directory, server.directory.parent):
        assert folder.stat().st_mode & 0o077 == 0
    for name in ("password", "server.conf"):
        assert (server.directory / name).stat().st_mode & 0o077 == 0
    assert EmbeddedRedis(server.directory, server.port).url == server.url


def test_an_older_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    folder.chmod(0o755)
    with EmbeddedRedis(folder):
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("password", ["a b", "x/#@%?;:[\n\"'\\é", "$HOME %41"])
def test_a_password_may_have_any_characters(tmp_path: Path, password: str) -> None:
    (tmp_path / "password").write_text(password)
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_an_empty_password_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("")
    with EmbeddedRedis(tmp_path) as server, redis.Redis(port=server.port) as stranger:
        assert len(server.password) > 20
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_another_program_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_SERVER", "no-such-server")
    with pytest.raises(CommandError, match="LOWTIDE_REDIS_SERVER: no-such-server is not an executable"):
        EmbeddedRedis(tmp_path)
    link = tmp_path / "my-server"
    monkeypatch.delenv("LOWTIDE_REDIS_SERVER")
    link.symlink_to(server_binary())
    monkeypatch.setenv("LOWTIDE_REDIS_SERVER", str(link))
    assert server_binary() == str(link)
