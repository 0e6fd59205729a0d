"""Faults on purpose: the rules that choose calls and jobs, and the kinds of fault that can hit them.

The kinds are the structs of the module `kinds`; the form of a rule is described in the module `rules`.
"""

from __future__ import annotations

from lowtide_emulator.faults import kinds
from lowtide_emulator.faults.rules import Call, FaultPlan, FaultRecord, RuleError

__all__ = ["Call", "FaultPlan", "FaultRecord", "RuleError", "kinds"]
