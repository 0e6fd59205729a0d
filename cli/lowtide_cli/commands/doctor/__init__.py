"""`lowtide doctor`: checks everything that a batch needs, and says how to fix problems.

`report` runs the checks and prints their findings. Each of the other files has the checks of one part.
"""

from __future__ import annotations

from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.commands.doctor.handlers import check_handlers
from lowtide_cli.commands.doctor.report import doctor

__all__ = ["Finding", "Health", "check_handlers", "doctor"]
