"""Runs the core of the test suite on both ends of every version range, on each Python that is found.

    python tools/compat.py                          all of them
    PYTHONS="python3.12 python3.13" VERSIONS=lowest python tools/compat.py tests/unit

PYTHONS are interpreters by name or path; by default those of python3.11 to python3.15 that work. VERSIONS are `lowest`,
which is what requirements-lowest.txt pins, and `newest`, which is what the package index has today. Arguments are those
of pytest, in place of the core. Ends with 1 if any run failed.

Each run is one Python with one set of versions. It takes five to ten minutes on two cores; after thirty it is stopped,
and has failed. At the end there are two tables: the results, and the versions of the project's own dependencies in each
run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import IO, Any, NamedTuple

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
    "tests/integration/test_metrics.py",
    "tests/integration/test_spool_in_buckets.py",
    "tests/integration/test_vertex.py",
    "tests/cli/test_help.py",
    "tests/cli/test_batches.py",
    "tests/cli/test_installation.py",
    "tests/cli/test_results.py",
    "tests/cli/test_submit.py",
    "tests/cli/test_flower.py",
    "tests/integration/test_flower_browser.py",
    "tests/integration/test_flower_pages.py",
)
"""Every package of the project's ranges has a part in one of these."""
MOST_SECONDS = 1800
"""Longest duration of one run."""
_PYTEST = ("-m", "pytest", "--numprocesses", "2", "--dist", "loadscope", "-m", "not soak and not thorough")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
_NAMES = tuple(f"python3.{minor}" for minor in range(11, 16))
_PACKAGE = re.compile(r"[A-Za-z0-9._-]+")
_VERSION = "import ensurepip, sys, venv; print(*sys.version_info[:3], sep='.')"


class Run(NamedTuple):
    """One line of the table of results."""

    python: str
    versions: str
    result: str
    seconds: float
    installed: dict[str, str]
    """The versions of the packages that the project names itself."""

    @property
    def name(self) -> str:
        return f"{self.python} {self.versions}"


def interpreters() -> dict[str, str]:
    """The paths of the interpreters that work, by version; a name may lead to one that is not installed."""
    found = {}
    for name in os.environ.get("PYTHONS", "").split() or _NAMES:
        path = shutil.which(name)
        done = path and subprocess.run([path, "-c", _VERSION], capture_output=True, text=True, check=False)
        if path and done and done.returncode == 0:
            found[done.stdout.strip()] = path
        else:
            print(f"{name}: not installed, or without ensurepip and venv; left out")
    return found


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def installs(versions: str) -> list[tuple[str, ...]]:
    """The arguments of pip, in their order."""
    first = ("--require-hashes", "-r", "requirements-pip.txt")
    if versions == "lowest":
        own = ("--no-deps", "--no-build-isolation", "-e", ".")
        return [first, ("--require-hashes", "-r", "requirements-lowest.txt"), own]
    return [first, ("--upgrade", "--group", "dev", "-e", f".[{','.join(project()['optional-dependencies'])}]")]


def own_packages() -> list[str]:
    """The packages that pyproject.toml names for users, in its order, by their normalised names."""
    table = project()
    wanted = [*table["dependencies"], *(one for extra in table["optional-dependencies"].values() for one in extra)]
    return list(dict.fromkeys(_normal(name) for one in wanted for name in _PACKAGE.findall(one)[:1]))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(path: str, version: str, versions: str) -> Run:
    """Makes an environment and runs the tests in it; their output is in a log beside it."""
    began = time.monotonic()
    folder = FOLDER / f"{version}-{versions}"
    log = FOLDER / f"{folder.name}.log"
    python = str(folder / "bin" / "python")
    steps = [
        [path, "-m", "venv", "--clear", str(folder)],
        *([python, *_PIP, *arguments] for arguments in installs(versions)),
        [python, *_PYTEST, *(sys.argv[1:] or CORE)],
    ]
    with log.open("w") as output:
        failed = any(_call(step, output, began + MOST_SECONDS) for step in steps)
    last = (log.read_text(errors="replace").splitlines() or [""])[-1]
    result = f"FAILED, see {log.relative_to(ROOT)}: {last}" if failed else last
    return Run(version, versions, result, time.monotonic() - began, _installed(python))


def _call(step: list[str], output: IO[str], deadline: float) -> int:
    """Runs a step in a group of its own, and ends the whole group at the deadline; returns its exit code."""
    process = subprocess.Popen(step, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        return process.wait(max(0, deadline - time.monotonic()))
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        output.write(f"\nstopped after {MOST_SECONDS} seconds\n")
        return 1


def _installed(python: str) -> dict[str, str]:
    """The installed versions of the project's own packages, by name; none if there is no environment."""
    listing = [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    try:
        found = json.loads(subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {_normal(one["name"]): one["version"] for one in found}


def print_tables(runs: list[Run]) -> None:
    print("\n| Python | versions | result | minutes |\n|---|---|---|---|")
    for one in runs:
        print(f"| {one.python} | {one.versions} | {one.result} | {one.seconds / 60:.1f} |")
    print(f"\n| package | {' | '.join(one.name for one in runs)} |\n|---{'|---' * len(runs)}|")
    for package in own_packages():
        print(f"| {package} | {' | '.join(one.installed.get(package, '-') for one in runs)} |")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    found = interpreters()
    if not found:
        sys.exit("no Python found: name some by PYTHONS, as names or paths")
    runs = []
    for version, path in found.items():
        for versions in os.environ.get("VERSIONS", "").split() or ("lowest", "newest"):
            print(f"Python {version}, {versions} versions ...", flush=True)
            runs.append(run(path, version, versions))
    print_tables(runs)
    sys.exit(any(one.result.startswith("FAILED") for one in runs))


if __name__ == "__main__":
    main()
