"""The spool holds prompts and answers: nobody else's business, unless its root says otherwise."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide.spool import Spool


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """The permissions of the root and all below it, by relative path."""
    found = {".": stat.S_IMODE(root.stat().st_mode)}
    return found | {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


def put(root: Path, name: str) -> None:
    with Spool(str(root)).write(name) as file:
        file.write(b"a prompt")


@pytest.mark.usefixtures("_umask")
def test_what_we_make_is_private_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "data" / "spool"
    put(root, "batches/b1/requests.jsonl")
    assert modes(tmp_path / "data") == {
        ".": 0o700,
        "spool": 0o700,
        "spool/batches": 0o700,
        "spool/batches/b1": 0o700,
        "spool/batches/b1/requests.jsonl": 0o600,
    }


@pytest.mark.usefixtures("_umask")
def test_the_first_thing_in_a_spool_makes_its_root_and_itself_private(tmp_path: Path) -> None:
    assert Spool(str(tmp_path / "data" / "spool")).create("folder/installation.json", b"{}")

    assert modes(tmp_path / "data") == {
        ".": 0o700,
        "spool": 0o700,
        "spool/folder": 0o700,
        "spool/folder/installation.json": 0o600,
    }


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize(
    ("root_mode", "folder", "file"),
    [
        (0o770, 0o770, 0o660),
        (0o775, 0o770, 0o660),
        (0o750, 0o750, 0o640),
        (0o755, 0o750, 0o640),
        (0o2770, 0o2770, 0o660),
        (0o777, 0o770, 0o660),
        (0o700, 0o700, 0o600),
        (0o707, 0o700, 0o600),
    ],
    ids=oct,
)
def test_below_a_root_that_is_there_its_group_has_what_the_root_gives_it_and_others_nothing(
    tmp_path: Path, root_mode: int, folder: int, file: int
) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(root_mode)
    put(root, "batches/b1/requests.jsonl")
    assert modes(root) == {
        ".": root_mode,
        "batches": folder,
        "batches/b1": folder,
        "batches/b1/requests.jsonl": file,
    }


@pytest.mark.parametrize(
    ("root_mode", "above", "is_open"),
    [(0o755, 0o755, True), (0o701, 0o755, True), (0o750, 0o755, False), (0o755, 0o700, False), (0o777, 0o710, False)],
)
def test_a_root_is_open_to_others_where_they_can_get_there(root_mode: int, above: int, is_open: bool) -> None:
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name) / "spool"
        root.mkdir()
        root.chmod(root_mode)
        root.parent.chmod(above)
        assert Spool(str(root)).is_open_to_others is is_open
        root.parent.chmod(0o700)


def test_without_a_home_directory_the_default_spool_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lowtide import SpoolError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpoolError, match="set HOME or LOWTIDE_SPOOL_URL"):
        Spool("~nobody-of-this-name/spool")
    assert list(tmp_path.iterdir()) == []
