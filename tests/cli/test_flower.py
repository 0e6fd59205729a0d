"""`lowtide flower`: one command that runs Flower with Lowtide's columns, behind a login that is kept."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.cli.helpers import Cli, clean_environment
from tests.command import Command
from tests.ports import quiet_port
from tests.waiting import wait_until

from lowtide_cli.local import given_login, kept_login
from lowtide_cli.terminal import CommandError


def test_flower_shows_lowtides_columns_to_those_who_know_the_printed_login(cli: Cli, tmp_path: Path) -> None:
    port = quiet_port()
    flower = cli.start("flower", f"--port={port}", HOME=str(tmp_path))
    try:
        assert flower.stdout is not None
        said = flower.stdout.readline()
        found = re.fullmatch(rf"Flower at (http://127.0.0.1:{port})  login (\S+):(\S+)\n", said)
        assert found, said + flower.stdout.read()
        url, user, password = found.groups()
        assert flower.stdout.readline() == f"Batches at {url}/lowtide\n"
        with httpx.Client(trust_env=False, base_url=url, timeout=180) as browser:

            def status(auth: tuple[str, str] | None) -> int:
                try:
                    return browser.get("/tasks", auth=auth).status_code
                except httpx.TransportError:
                    return 0

            wait_until(lambda: status(None) == 401, what="Flower asks for the login")
            page = browser.get("/tasks", auth=(user, password))
            assert "<h1>Batches</h1>" in browser.get("/lowtide", auth=(user, password)).text
        assert page.status_code == 200
        columns = ["name", "kwargs", "state", "result", "received", "runtime", "worker", "uuid"]
        # The page of Flower 2.1 has all columns, and drops the others by a script.
        hidden = re.search(r'value="([\w,]+)" id=.columns', page.text)
        assert (hidden[1].split(",") if hidden else re.findall(r'<th data-column="(\w+)"', page.text)) == columns
        assert password not in Path(f"/proc/{flower.pid}/cmdline").read_text()
        assert kept_login(tmp_path / ".lowtide" / "flower") == f"{user}:{password}"
        assert "choose another one with --port" in cli("flower", f"--port={port}", code=1, HOME=str(tmp_path)).err
    finally:
        flower.kill()
        flower.communicate()


def test_the_login_is_generated_once_and_again_where_its_file_is_empty(tmp_path: Path) -> None:
    login = kept_login(tmp_path)
    assert re.fullmatch(r"lowtide:\S{16}", login)
    assert kept_login(tmp_path) == login
    assert (tmp_path / "login").stat().st_mode & 0o077 == 0
    (tmp_path / "login").write_text("")
    assert kept_login(tmp_path) != login


def test_a_login_without_a_password_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOWTIDE_FLOWER_BASIC_AUTH", "user:")
    with pytest.raises(CommandError, match="expected user:password"):
        given_login()
    assert (
        "expected user:password"
        in Cli(clean_environment(), tmp_path)("flower", code=1, LOWTIDE_FLOWER_BASIC_AUTH="user").err
    )


def test_nothing_is_printed_as_if_all_were_well_where_redis_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command({**clean_environment(), "HOME": str(tmp_path)}, tmp_path, capsys)
    said = command("flower", "--port", f"{quiet_port()}", LOWTIDE_REDIS_URL=f"redis://127.0.0.1:{quiet_port()}/0")

    assert (said.code, said.out) == (1, "")
    assert "is not reachable" in said.err
