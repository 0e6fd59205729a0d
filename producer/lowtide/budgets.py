"""Budgets: the most that the work under a label may cost in a day and in a month, and amounts of money as text.

All amounts are whole nano-dollars. Days and months are those of UTC.
"""

from __future__ import annotations

import hashlib
from calendar import monthrange
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Any

import msgspec

from lowtide.limits import MAX_LABEL_NAME_CHARS, MAX_LABEL_VALUE_CHARS
from lowtide.text import counted

_NANO = 10**9
_MAX_DOLLARS = 1_000_000
_MAX_BUDGETS = 500
_EXAMPLE = 'write JSON such as {"team=catalog": {"day": 50, "month": 800}}'
_AMOUNT = f"US dollars above 0, up to {_MAX_DOLLARS:,}, with at most 9 decimals"


class Period(StrEnum):
    """The time after which a budget begins anew."""

    DAY = "day"
    MONTH = "month"

    def days(self, today: date) -> list[date]:
        """Returns the days of the period that `today` is in.

        Those after `today` have costs where Redis's clock was set back. They count too.
        """
        if self is Period.DAY:
            return [today]
        return [today.replace(day=day) for day in range(1, monthrange(today.year, today.month)[1] + 1)]

    def end(self, today: date) -> float:
        """Returns when the period that `today` is in ends, in Unix seconds."""
        next_month = today.replace(day=1) + timedelta(days=32)
        after = today + timedelta(days=1) if self is Period.DAY else next_month.replace(day=1)
        return datetime.combine(after, time(), UTC).timestamp()


Budget = Mapping[Period, int]
"""The limit of each period, in nano-dollars."""


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """The budget that a job waits for, as it was when the job last asked. Amounts are in nano-dollars."""

    budget: str
    """The label and its value, as `team=catalog`; or the id of a batch with a `max_cost`."""
    period: Period | None = None
    """The period whose limit is reached; None for the `max_cost` of a batch."""
    limit: int
    """The most that may be paid."""
    spent: int
    """Paid in the period, or for the batch."""
    reserved: int
    """Estimated cost of the jobs under way."""
    needed: int
    """Estimated cost of the next request."""
    until: float | None = None
    """When the next period begins, in Unix seconds; None for the `max_cost` of a batch."""
    never: bool = False
    """Whether the next request may cost more than the limit of a whole period, so that it never fits."""

    def __str__(self) -> str:
        which = f"the budget {self.budget} of this {self.period}" if self.period else "the max_cost of the batch"
        spent, reserved, limit, needed = map(exact_dollars, (self.spent, self.reserved, self.limit, self.needed))
        if self.never:
            return (
                f"the next request may cost {needed} and never fits: the whole budget {self.budget} of a {self.period} "
                f"is {limit}; raise that budget, or cancel the batch and set max_output_tokens"
            )
        why = (
            f"{which} leaves too little: {spent} paid and {reserved} reserved of {limit}, "
            f"and the next request may cost {needed}"
        )
        if self.until is None:
            return why
        begins = datetime.fromtimestamp(self.until, UTC)
        return f"{why}; the next {self.period} begins at {begins:%Y-%m-%d %H:%M} UTC"


def nano_dollars(given: object) -> int:
    """Returns an amount of dollars as nano-dollars. Raises `ValueError`, whose message does not repeat the value.

    - `given`: an int, `Decimal` or text, which are exact, or a float, which counts as it is written.
    """
    if isinstance(given, (int, float, str, Decimal)) and not isinstance(given, bool):
        with suppress(ArithmeticError, ValueError):
            amount = Decimal(str(given))
            decimals = amount.as_tuple().exponent
            if isinstance(decimals, int) and decimals >= -9 and 0 < amount <= _MAX_DOLLARS:
                return int(amount.scaleb(9))
    raise ValueError(f"write {_AMOUNT}")


def dollars(nano: int) -> str:
    """Returns an amount for people: cents, or what is less than a dollar to the millionth, rounded up."""
    exact = Decimal(nano) / _NANO
    if abs(exact) >= 1 or not nano:
        return f"${exact:,.2f}"
    return f"${exact.quantize(Decimal('0.000001'), ROUND_CEILING)}"


def exact_dollars(nano: int) -> str:
    """Returns an amount for errors, which compare two: no digit is left out."""
    exact = Decimal(nano).scaleb(-9)
    cents = Decimal("0.01")
    return f"${exact.quantize(cents) if exact % cents == 0 else exact.normalize():,f}"


def plain_dollars(nano: int) -> str:
    """Returns an amount for programs: US dollars to the last digit, without a sign, as `0.001500000`."""
    return f"{Decimal(nano).scaleb(-9):f}"


def cost_text(cost: int | None, paid: int | None, unpriced: int) -> str:
    """Returns what a batch has cost in one line; empty before its first answer.

    - `cost`: of its results, `paid`: of all its rows, in nano-dollars. `unpriced`: the rows without a price.
    """
    parts = [dollars(paid)] if paid else []
    if paid and paid != cost:
        parts.append(f"of it {dollars(cost or 0)} for results")
    if unpriced:
        parts.append(f"{counted(unpriced, 'row')} without a known price{' more' * bool(paid)}")
    return ", ".join(parts)


def parse_budgets(given: Any) -> dict[str, Budget]:
    """Returns budgets by label and value, as `team=catalog`.

    - `given`: JSON text, or a mapping: of each label with its value the dollars for a day, a month, or both.

    Raises `ValueError`, which names the entry and the field that are wrong.
    """
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise ValueError(f"this is not JSON; {_EXAMPLE}") from None
    if not isinstance(given, Mapping) or len(given) > _MAX_BUDGETS:
        raise ValueError(f"this is not an object of at most {_MAX_BUDGETS} budgets; {_EXAMPLE}")
    return {_checked_label(label): _budget(label, limits) for label, limits in given.items()}


def _checked_label(given: object) -> str:
    name, equals, value = given.partition("=") if isinstance(given, str) else ("", "", "")
    fits = len(name) <= MAX_LABEL_NAME_CHARS and len(value) <= MAX_LABEL_VALUE_CHARS
    if not name or not equals or not fits or not str(given).isprintable():
        raise ValueError(f"{given!r:.80}: name a label and its value, as in team=catalog; {_EXAMPLE}")
    return str(given)


def _budget(label: str, given: object) -> dict[Period, int]:
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{label!r:.80}: give a day, a month, or both; {_EXAMPLE}")
    limits: dict[Period, int] = {}
    for name, amount in given.items():
        if name not in set(Period):
            raise ValueError(f"{label!r:.80}: {name!r:.40} is no period; write day or month")
        try:
            limits[Period(name)] = nano_dollars(amount)
        except ValueError as error:
            raise ValueError(f"{label!r:.80}, {name}: {error}") from None
    if Period.DAY in limits and Period.MONTH in limits and limits[Period.DAY] > limits[Period.MONTH]:
        raise ValueError(f"{label!r:.80}, day: more than for the whole month; write a smaller amount")
    return limits


def budgets_digest(budgets: Mapping[str, Budget]) -> str:
    """Returns a short digest that is equal for equal budgets; it shows neither labels nor amounts."""
    named = {name: {str(period): limit for period, limit in limits.items()} for name, limits in budgets.items()}
    return hashlib.blake2b(msgspec.json.encode(named, order="deterministic"), digest_size=8).hexdigest()


def labels_under(budgets: Mapping[str, object], labels: Mapping[str, str]) -> dict[str, str]:
    """Returns those of a batch's labels that have a budget."""
    if not budgets:
        return {}
    return {name: value for name, value in labels.items() if f"{name}={value}" in budgets}
