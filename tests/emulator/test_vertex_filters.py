"""Filters of lists."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide_emulator.vertex.filters import FilterError, Listed, parse_filter

JOB = Listed(
    display_name="lowtide-b1-3",
    state="JOB_STATE_RUNNING",
    create_time=1_790_000_000.0,
    update_time=1_790_000_100.0,
    labels={"team": "tide"},
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ('display_name="lowtide-b1-3"', True),
        ('display_name = "lowtide-b1-3"', True),
        ("display_name=lowtide-b1-3", True),
        ('display_name="lowtide-b1"', False),
        ('display_name!="lowtide-b1-3"', False),
        ('display_name:"lowtide-*"', True),
        ('display_name:"*-b2-*"', False),
        ('display_name:"b1"', True),
        ('display_name:"[l]*"', False),
        ('model_display_name=""', True),
        ('state="JOB_STATE_RUNNING"', True),
        ("state=JOB_STATE_RUNNING", True),
        ('state!="JOB_STATE_RUNNING"', False),
        ('create_time>"2026-01-01T00:00:00Z"', True),
        ("create_time<2026-01-01T00:00:00Z", False),
        ('update_time>="2030-01-01T00:00:00+01:00"', False),
        ("labels.team=tide", True),
        ('labels.team!="tide"', False),
        ("labels.team:*", True),
        ("labels.colour:*", False),
        ('state="JOB_STATE_RUNNING" AND labels.team=tide', True),
        ('state="JOB_STATE_RUNNING" AND labels.team=ebb', False),
        ("labels.team=tide labels.team:*", True),
        ("labels.team=ebb OR labels.team=tide", True),
        ("labels.team=tide AND labels.team=ebb OR labels.team:*", True),
        ("NOT labels.team=ebb", True),
        ("-labels.team=tide", False),
        ("NOT (labels.team=tide AND state=JOB_STATE_RUNNING)", False),
    ],
)
def test_a_filter_chooses(text: str, holds: bool) -> None:
    assert parse_filter(text)(JOB) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=blue", "colour"),
        ("state>JOB_STATE_RUNNING", "state"),
        ("state:JOB*", "state"),
        ("display_name", "the end"),
        ("display_name=", "display_name="),
        ('display_name="open', "position"),
        ("(state=x", "parenthesis"),
        ("state=x)", "')'"),
        ("create_time>yesterday", "yesterday"),
        ("labels.team:tide", "tide"),
        ("state=x AND", "the end"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert words in str(caught.value)


@given(st.text(max_size=40))
def test_any_name_can_be_looked_for(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    chosen = parse_filter(f'display_name="{quoted}"')
    assert chosen(Listed(name, "", 0, 0, {}))
    assert not chosen(Listed(name + "x", "", 0, 0, {}))


@given(st.text(alphabet='abc_.=:!<>()"-* 01', max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    with suppress(FilterError):
        parse_filter(text)(JOB)
