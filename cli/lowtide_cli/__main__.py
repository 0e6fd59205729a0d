"""The `lowtide` command, as `python -m lowtide_cli`."""

from __future__ import annotations

from lowtide_cli import main

main()
