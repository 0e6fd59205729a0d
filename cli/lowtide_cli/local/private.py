"""Folders and files that no other user of this machine can open, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def private_folder(path: Path) -> None:
    """Creates a folder and its missing parents for this user alone. Removes other users' access to an existing one."""
    if not path.parent.exists():
        private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def private_file(path: Path, text: str) -> None:
    """Writes a file for this user alone. The file appears complete or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    draft.replace(path)


def kept_secret(path: Path, generated: Callable[[], str]) -> str:
    """Returns the secret in a private file. It is generated once, so what a user has copied stays valid."""
    private_folder(path.parent)
    # A full disk can leave an empty file, and with an empty secret a server would be open to every user.
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        private_file(path, generated())
    return path.read_text(encoding="utf-8").strip()
