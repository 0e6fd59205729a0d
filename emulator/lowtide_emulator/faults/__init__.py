"""Injected faults: rules that choose calls and jobs, and the kinds of faults that can hit them.

The module `rules` describes the form of a rule; the module `kinds` has a struct for each kind.
"""

from __future__ import annotations

from lowtide_emulator.faults import kinds
from lowtide_emulator.faults.rules import Call, FaultPlan, FaultRecord, RuleError, load_rules

__all__ = ["Call", "FaultPlan", "FaultRecord", "RuleError", "kinds", "load_rules"]
