"""The file that `lowtide results --output` writes: whole or not at all, and nothing else is replaced by it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lowtide_cli.commands.results.command import complete_file
from lowtide_cli.terminal import CommandError


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with complete_file(pipe) as file:
            file.write(b"{}\n")

        assert os.read(reader, 100) == b"{}\n"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("exists", [True, False])
def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to(target)

    with complete_file(link) as file:
        file.write(b"new")

    assert link.is_symlink()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_target_of_a_link_as_it_is(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)

    def write_a_part() -> None:
        with complete_file(link) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_a_part()

    assert target.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="directory"), complete_file(tmp_path):
        pass
