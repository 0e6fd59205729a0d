"""An old server is refused by all who would write to it, before they do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.older import older_server
from tests.proxy import RedisProxy
from tests.stack import Stack

from lowtide import AsyncBatchQueue, BatchQueue, UnsupportedServer
from lowtide.protocol import keys
from lowtide.store.server import is_new_enough


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, RedisProxy]]:
    with Stack(tmp_path_factory.mktemp("older")) as stack, older_server(stack.redis_server) as server:
        yield stack, server


def test_a_producer_refuses_before_it_writes_anything(older: tuple[Stack, RedisProxy], tmp_path: Path) -> None:
    stack, server = older
    settings = stack.settings(redis_url=server.url, spool_url=str(tmp_path / "spool"))
    known = stack.redis.dbsize()
    with pytest.raises(UnsupportedServer, match=r"Redis 6\.\S+ is too old: Lowtide needs Redis 7\.0, Valkey 7\.2"):
        BatchQueue(settings).submit(blurbs(2), model=MODEL)
    with pytest.raises(UnsupportedServer):
        asyncio.run(AsyncBatchQueue(settings).submit(blurbs(2), model=MODEL))
    assert stack.redis.dbsize() == known
    assert not Path(settings.spool_url).exists()


def test_a_worker_ends_at_once_with_one_line(older: tuple[Stack, RedisProxy]) -> None:
    stack, server = older
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-l", "warning", "-P", "solo"],
        env=stack.env | {"LOWTIDE_REDIS_URL": server.url},
        cwd=stack.directory,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "CRITICAL" in line or "ERROR" in line]
    assert len(told) == 1, done.stderr
    assert "this worker ends: Redis 6." in told[0]
    assert "Traceback" not in done.stderr + done.stdout
    assert stack.redis_server.password not in done.stderr + done.stdout
    # The reason, which `lowtide doctor` shows, is all that it writes.
    assert stack.redis.keys("lowtide:*") == [keys.SERVING.encode()]


def test_doctor_says_so(older: tuple[Stack, RedisProxy]) -> None:
    stack, server = older
    done = subprocess.run(
        [sys.executable, "-m", "lowtide_cli", "doctor"],
        env=stack.env | {"LOWTIDE_REDIS_URL": server.url, "COLUMNS": "200"},
        cwd=stack.directory,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    assert "Lowtide needs Redis 7.0, Valkey 7.2, or newer" in done.stdout


def test_a_server_that_hides_its_version_is_refused_with_what_to_allow(older: tuple[Stack, RedisProxy]) -> None:
    stack, _ = older
    stack.redis.execute_command("ACL", "SETUSER", "shy", "on", ">pw", "~*", "&*", "+@all", "-info")
    with pytest.raises(UnsupportedServer, match=r"allow it INFO"):
        stack.queue(redis_url=f"redis://shy:pw@127.0.0.1:{stack.redis_server.port}/0").submit(blurbs(1), model=MODEL)


@pytest.mark.parametrize(
    ("version", "new_enough"),
    [
        ("7.0.0", True),
        ("7.0.15", True),
        ("7.2.4", True),
        ("8.2.1", True),
        ("10.0.0", True),
        ("255.255.255", True),
        ("6.2.14", False),
        ("6.3.4", False),
        ("2.8.24", False),
        ("", False),
        ("unstable", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, new_enough: bool) -> None:
    assert is_new_enough(version) is new_enough
