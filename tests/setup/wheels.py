"""Wheels made on the spot, and the folder that stands for a package index."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class Index:
    """A folder of wheels; whoever looks for a package there is offered every version in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, version: str, *metadata: str) -> Path:
        """Adds a package of one module that knows its version; `metadata` are more lines of its METADATA."""
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        info = f"{name}-{version}.dist-info"
        return self._write(
            name,
            version,
            {
                f"{name}.py": f"VERSION = {version!r}\n".encode(),
                f"{info}/METADATA": (head + "".join(f"{line}\n" for line in metadata)).encode(),
                f"{info}/WHEEL": _WHEEL.encode(),
            },
        )

    def add_installed(self, name: str) -> Path:
        """Adds a pure Python package as it is installed here."""
        installed = distribution(name)
        files = {
            str(file): Path(str(file.locate())).read_bytes()
            for file in installed.files or ()
            if ".." not in file.parts
            and file.suffix != ".pyc"
            and file.name not in ("RECORD", "INSTALLER", "REQUESTED")
        }
        return self._write(name, installed.version, files)

    def _write(self, name: str, version: str, files: Mapping[str, bytes]) -> Path:
        wheel = self.folder / f"{name}-{version}-py3-none-any.whl"
        record = f"{name}-{version}.dist-info/RECORD"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
            archive.writestr(record, "".join(f"{path},,\n" for path in [*files, record]))
        return wheel


def pin(wheel: Path) -> str:
    """The line of a lock file that pins a wheel by its hash."""
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
