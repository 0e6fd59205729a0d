"""Runs the core of the test suite on both ends of every version range, on each Python that is found.

    python tools/compat.py                          all of them
    PYTHONS="python3.12 python3.13" VERSIONS=lowest python tools/compat.py tests/unit

PYTHONS are interpreters by name or path; by default those of python3.11 to python3.15 that work. VERSIONS are `lowest`,
which is what requirements-lowest.txt pins, and `newest`, which is what the package index has today. Arguments are those
of pytest, in place of the core. Ends with 1 if any run failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-compat"
CORE = (
    "tests/unit",
    "tests/setup/test_bare.py",
    "tests/emulator/test_jobs.py",
    "tests/emulator/test_vertex_jobs.py",
    "tests/integration/test_fundamentals.py",
    "tests/integration/test_celery_handler.py",
    "tests/integration/test_webhook_handler.py",
    "tests/integration/test_hostile_messages.py",
    "tests/integration/test_redis_restart.py",
    "tests/cli/test_help.py",
    "tests/cli/test_batches.py",
)
_PYTEST = ("-m", "pytest", "--numprocesses", "2", "--dist", "loadscope", "-m", "not soak and not thorough")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
_NAMES = tuple(f"python3.{minor}" for minor in range(11, 16))
_VERSION = "import ensurepip, sys, venv; print(*sys.version_info[:3], sep='.')"


class Run(NamedTuple):
    """One line of the table."""

    python: str
    versions: str
    result: str
    seconds: float = 0.0


def interpreters() -> dict[str, str]:
    """The paths of the interpreters that work, by version; a name may lead to one that is not installed."""
    found = {}
    for name in os.environ.get("PYTHONS", "").split() or _NAMES:
        if path := shutil.which(name):
            done = subprocess.run([path, "-c", _VERSION], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found[done.stdout.strip()] = path
    return found


def installs(versions: str) -> list[tuple[str, ...]]:
    """The arguments of pip, in their order."""
    first = ("--require-hashes", "-r", "requirements-pip.txt")
    if versions == "lowest":
        own = ("--no-deps", "--no-build-isolation", "-e", ".")
        return [first, ("--require-hashes", "-r", "requirements-lowest.txt"), own]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [first, ("--upgrade", "--group", "dev", "-e", f".[{','.join(project['optional-dependencies'])}]")]


def run(path: str, version: str, versions: str) -> Run:
    """Makes an environment and runs the tests in it; their output is in a log beside it."""
    began = time.monotonic()
    folder = FOLDER / f"{version}-{versions}"
    log = FOLDER / f"{folder.name}.log"
    python = folder / "bin" / "python"
    steps = [
        [path, "-m", "venv", "--clear", folder],
        *([python, *_PIP, *arguments] for arguments in installs(versions)),
        [python, *_PYTEST, *(sys.argv[1:] or CORE)],
    ]
    with log.open("w") as output:
        failed = any(subprocess.call(step, cwd=ROOT, stdout=output, stderr=output) for step in steps)
    last = (log.read_text(errors="replace").splitlines() or [""])[-1]
    result = f"FAILED, see {log.relative_to(ROOT)}: {last}" if failed else last
    return Run(version, versions, result, time.monotonic() - began)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    found = interpreters()
    if not found:
        sys.exit(f"no Python found: none of {os.environ.get('PYTHONS') or ', '.join(_NAMES)} works")
    runs = []
    for version, path in found.items():
        for versions in os.environ.get("VERSIONS", "").split() or ("lowest", "newest"):
            print(f"Python {version}, {versions} versions ...", flush=True)
            runs.append(run(path, version, versions))
    print("\n| Python | versions | result | minutes |\n|---|---|---|---|")
    for one in runs:
        print(f"| {one.python} | {one.versions} | {one.result} | {one.seconds / 60:.1f} |")
    sys.exit(any(one.result.startswith("FAILED") for one in runs))


if __name__ == "__main__":
    main()
