from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.backoff import Backoff

TRIES = st.integers(0, 10**9)


@settings(deadline=None)
@given(TRIES, st.floats(0.01, 1000), st.floats(0.01, 10_000), st.floats(1, 1000))
def test_every_pause_lies_between_first_and_cap_give_or_take_the_jitter(
    tries: int, first: float, more: float, factor: float
) -> None:
    pause = Backoff(first=first, cap=first + more, factor=factor, jitter=0.1).seconds(tries)
    assert 0.9 * first <= pause * (1 + 1e-9)
    assert pause <= 1.1 * (first + more) * (1 + 1e-9)


def test_pauses_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(first=30, cap=600, factor=2, jitter=0)
    assert [backoff.seconds(tries) for tries in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    assert backoff.seconds(10**9) == 600


def test_a_cap_below_the_first_pause_wins() -> None:
    assert Backoff(first=30, cap=5, jitter=0).seconds(0) == 5


def test_jitter_disperses_a_crowd() -> None:
    backoff = Backoff(first=100, cap=100, jitter=0.1)
    pauses = [backoff.seconds(0) for _ in range(500)]
    assert min(pauses) < 95
    assert max(pauses) > 105
    assert len(set(pauses)) > 400
