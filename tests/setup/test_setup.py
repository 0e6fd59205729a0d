"""Set-up installs what the lock files pin, whatever was published since."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.docs.documents import ROOT
from tests.setup.wheels import Index, pin

_SYSTEM = Path("/usr/bin/python3")
_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "project"
version = "1.0"
"""
_BACKEND = """
import shutil


def build_editable(directory, config_settings=None, metadata_directory=None):
    return shutil.copy({wheel!r}, directory).rpartition("/")[2]
"""


def system_python() -> str:
    """The system's Python, whose pip may be old; else the one that runs the tests."""
    usable = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    if _SYSTEM.exists() and subprocess.run([_SYSTEM, "-c", usable], check=False, capture_output=True).returncode == 0:
        return str(_SYSTEM)
    return sys.executable


def make(folder: Path, index: Index, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make there with a bare environment, in which pip knows that index alone."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index.folder),
    }
    command = ["make", f"PYTHON={system_python()}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index")


@pytest.fixture
def checkout(tmp_path: Path, index: Index) -> Path:
    """A project with this one's Makefile, whose pinned packages were all published anew."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / "backend.py").write_text(_BACKEND.format(wheel=str(Index(tmp_path / "own").add("project", "1.0"))))
    (folder / "requirements-pip.txt").write_text(pin(index.add_installed("pip")))
    extra = "Provides-Extra: tls"
    pins = [index.add("library", "1.0", extra), index.add("client", "1.0", "Requires-Dist: library[tls]>=1.0")]
    (folder / "requirements-dev.txt").write_text("".join(map(pin, pins)))
    index.add("pip", "99.0")
    index.add("library", "2.0", extra)
    index.add("client", "2.0")
    return folder


def test_newer_versions_of_pinned_packages_change_nothing(checkout: Path, index: Index) -> None:
    done = make(checkout, index, "setup")

    assert done.returncode == 0, done.stderr
    python = checkout / ".venv" / "bin" / "python"
    shown = "import client, library, project; print(client.VERSION, library.VERSION, project.VERSION)"
    found = subprocess.run([python, "-c", shown], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1.0", "1.0", "1.0"]


def test_set_up_says_in_a_line_what_it_does_and_in_another_what_comes_next(checkout: Path, index: Index) -> None:
    shown = make(checkout, index, "--dry-run", "--silent", "setup").stdout

    said = [line for line in shown.splitlines() if line.startswith("echo")]
    assert ["Setting up .venv" in line for line in said] == [True, False]
    assert ["Next: make demo" in line for line in said] == [False, True]


@pytest.mark.parametrize("target", ["setup", ".venv-bench/.installed"])
def test_the_pinned_pip_comes_before_all_else_in_each_environment(target: str) -> None:
    shown = subprocess.run(
        ["make", "--always-make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installs = [line for line in shown.stdout.splitlines() if "pip install" in line]

    assert "--require-hashes -r requirements-pip.txt" in installs[0]
    assert "--require-hashes" in installs[1]
    assert "--no-deps --no-build-isolation" in installs[2]


def test_the_image_is_installed_from_lock_files_alone() -> None:
    installs = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "pip install" in line]

    assert "--require-hashes -r requirements-pip.txt" in installs[0]
    assert "--require-hashes -r requirements.txt" in installs[1]
    assert "--no-deps --no-build-isolation" in installs[2]


def test_the_image_is_pinned_to_what_the_tests_run_with() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.partition(" ;")[0].removesuffix(" \\") for line in lines if "==" in line.partition(" ")[0]}

    assert pins("requirements.txt") <= pins("requirements-dev.txt")


def test_compat_tests_the_lowest_version_of_each_range() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = table["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    wanted += [one for group in table["dependency-groups"].values() for one in group if isinstance(one, str)]
    pins: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements-lowest.txt").read_text(), re.MULTILINE):
        pins.setdefault(canonicalize_name(name), set()).add(Version(version))
    for requirement in map(Requirement, wanted):
        (lowest,) = (Version(one.version) for one in requirement.specifier if one.operator in (">=", "=="))
        assert lowest in pins[canonicalize_name(requirement.name)], (
            f"{requirement}: make lowest-lock, or raise the bound"
        )
