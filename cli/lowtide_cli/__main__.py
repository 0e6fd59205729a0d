"""`python -m lowtide_cli` is `lowtide`."""

from __future__ import annotations

from lowtide_cli.app import main

main()
