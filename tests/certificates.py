"""A file with one certificate: no test needs an authority, and to load hundreds takes a tenth of a process's start."""

from __future__ import annotations

from pathlib import Path

ONE = Path(__file__).with_suffix(".pem")
