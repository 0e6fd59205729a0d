"""The stand-ins for Google's storage: they start, say which packages are missing, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from tests.waiting import wait_until

from lowtide_emulator import cloud
from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer, ServerError
from lowtide_emulator.extras import install


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_keeps_its_objects_from_start_to_start(tmp_path: Path) -> None:
    for attempt in range(2):
        with CloudStorageServer(tmp_path) as server:
            options = {"api_endpoint": server.url}
            client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options)
            if attempt == 0:
                client.create_bucket("shop").blob("a").upload_from_string("kept")
            assert client.bucket("shop").blob("a").download_as_text() == "kept"
            client.close()
            pid = server.pid
            assert pid is not None
        assert server.pid is None
        assert not alive(pid)


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path, cloud_storage: CloudStorageServer) -> None:
    port = int(cloud_storage.url.rpartition(":")[2])
    with pytest.raises(ServerError, match=f"port {port} is in use"):
        CloudStorageServer(tmp_path, port=port).start()


def test_a_server_that_ends_as_it_starts_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no disk')"]
    monkeypatch.setattr(CloudStorageServer, "_command", lambda *_: command)
    with pytest.raises(ServerError, match="no disk") as caught:
        CloudStorageServer(tmp_path).start()
    assert str(tmp_path / "cloud-storage.log") in str(caught.value)


@pytest.mark.parametrize("server", [CloudStorageServer, BigQueryServer])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[CloudStorageServer | BigQueryServer]
) -> None:
    monkeypatch.setattr(cloud, "find_spec", lambda _: None)
    with pytest.raises(ServerError) as caught:
        server(tmp_path).start()
    assert install("vertex-emulator") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends orphans")
def test_a_server_dies_with_its_parent(tmp_path: Path) -> None:
    script = f"""
        import signal
        from lowtide_emulator.cloud import CloudStorageServer
        with CloudStorageServer({str(tmp_path)!r}) as server:
            print(server.pid, flush=True)
            signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    wait_until(lambda: not alive(pid))
