"""The long random run. CHAOS_SECONDS says how long, CHAOS_SEED repeats one, CHAOS_SPOOL names its storage."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.soak import soak
from tests.chaos.storages import Storages

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))


@pytest.mark.soak
@pytest.mark.timeout(int(SECONDS * 3 + 300))
def test_nothing_is_lost_or_paid_twice_in_a_random_run(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nCHAOS_SEED={seed} CHAOS_SECONDS={SECONDS:g}")
    with Storages(tmp_path / "storages") as storages, ChaosStack(tmp_path) as stack:
        figures = soak(stack, storages, seed=seed, seconds=SECONDS)
    print(figures.table())

    assert figures.lost == 0
    assert figures.double_counted == 0
    assert figures.twins == 0
    assert figures.billed_twice == 0
