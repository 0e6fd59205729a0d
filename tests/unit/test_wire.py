from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.lists import words

from lowtide.protocol import wire_ordinal
from lowtide.protocol.wire_keys import WireKeys

BATCHES = st.from_regex(r"[a-z0-9][a-z0-9-]{2,47}", fullmatch=True)
ORDINALS = st.integers(0, 9_999_999_999)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)
@given(BATCHES, ORDINALS, KEYS)
def test_a_wire_key_gives_its_ordinal_back(batch: str, ordinal: int, key: str) -> None:
    assert wire_ordinal(WireKeys(batch).of(ordinal, key)) == ordinal


@settings(deadline=None)
@given(BATCHES, ORDINALS, KEYS)
def test_a_wire_key_is_short_plain_and_begins_with_a_letter(batch: str, ordinal: int, key: str) -> None:
    wire = WireKeys(batch).of(ordinal, key)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", wire)
    assert len(wire) <= 24


@settings(deadline=None)
@given(BATCHES, BATCHES, ORDINALS, KEYS)
def test_another_batch_gives_another_digest(batch: str, other: str, ordinal: int, key: str) -> None:
    assume(batch != other)
    assert WireKeys(batch).of(ordinal, key) != WireKeys(other).of(ordinal, key)


@settings(deadline=None)
@given(BATCHES, ORDINALS, ORDINALS, KEYS)
def test_another_ordinal_gives_another_digest(batch: str, ordinal: int, other: int, key: str) -> None:
    assume(ordinal != other)
    digests = {WireKeys(batch).of(number, key).partition(".")[2] for number in (ordinal, other)}
    assert len(digests) == 2


@settings(deadline=None)
@given(BATCHES, ORDINALS, KEYS, KEYS)
def test_another_key_gives_another_digest(batch: str, ordinal: int, key: str, other: str) -> None:
    assume(key != other)
    assert WireKeys(batch).of(ordinal, key) != WireKeys(batch).of(ordinal, other)


def test_the_digits_of_ordinal_and_key_do_not_run_into_each_other() -> None:
    digests = {WireKeys("batch").of(1, "2:3").partition(".")[2], WireKeys("batch").of(12, ":3").partition(".")[2]}
    digests |= {WireKeys("batch").of(1, "1:x").partition(".")[2], WireKeys("batch").of(11, ":x").partition(".")[2]}
    assert len(digests) == 4


def test_wire_keys_of_a_large_batch_are_all_different() -> None:
    wire = WireKeys("batch")
    assert len({wire.of(ordinal, str(ordinal)) for ordinal in range(50_000)}) == 50_000


def test_a_wire_key_is_the_same_in_every_process() -> None:
    # Stored in the spool by one process, checked by others, perhaps of a later version: it must not change.
    assert WireKeys("b0000000000000000000a").of(7, "käse") == "r7.d1961882a99e"


@pytest.mark.parametrize(
    "foreign",
    [
        *words(
            """
            r r1 r1. .0123456789ab r1.0123456789a r1.0123456789abc r1.0123456789aB R1.0123456789ab
            r01.0123456789ab r-1.0123456789ab r+1.0123456789ab r1.0123456789ag r1_0.0123456789ab
            r12345678901.0123456789ab request-1 0 null
            """
        ),
        "",
        " r1.0123456789ab",
        "r1.0123456789ab\n",
        "\nr1.0123456789ab",
        "r1.0123456789ab r2.0123456789ab",
        "r٣.0123456789ab",
    ],
)
def test_a_foreign_or_damaged_key_is_recognised(foreign: str) -> None:
    assert wire_ordinal(foreign) is None


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_foreign_key_or_of_our_shape(text: str) -> None:
    ordinal = wire_ordinal(text)
    assert ordinal is None or text.startswith(f"r{ordinal}.")
