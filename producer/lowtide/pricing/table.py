"""The price table: reads a TOML file of prices, checks every row, and finds the prices of a model on a day.

A file has one array `price` of rows, with these columns:

- `model`: the name of a model, which stands for all its versions; or its beginning and `*`, for models without a row
  of their own. The longest beginning counts.
- `tiers`: one or more of `batch`, `flex` and `standard`.
- `modality`: `text`, `image`, `audio` or `video`; `text` if absent. Tokens of a modality without a row cost as text.
- `above`: the row counts for requests of more prompt tokens than this; 0 if absent.
- `input`, `cached`, `output`: US dollars for 1,000,000 tokens of the prompt, of its cached part, and of the answer with
  thoughts, with at most 6 decimals. A row of another modality than text may leave out `output`.
- `since`, `until`: the first day on which it counts, and the first on which it does not any more.
- `read`: the day on which the source showed it; `source`: the page or the report.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from lowtide.errors import InvalidSettings
from lowtide.same_model import without_version

_MAX_BYTES = 1 << 20
_MAX_DOLLARS = 1_000_000
_DECIMALS = 6
"""A dollar for a million tokens is a millionth of a dollar, or 10**6 pico-dollars, for each."""
_ALIKE = 0.8
"""Likeness, from 0 to 1, from which on two names may be meant as one."""
_NUMBERS = re.compile(r"\d+")
_BETWEEN_WORDS = re.compile(r"[-.\d]+")
_ALWAYS, _NEVER = date.min, date.max
_COLUMNS = {"model", "tiers", "modality", "above", "input", "cached", "output", "since", "until", "read", "source"}
Value = TypeVar("Value", bound=StrEnum)


class InvalidPrices(InvalidSettings):
    """A price table that cannot be used. The message names the setting, the row and the column."""


class Tier(StrEnum):
    """The way in which requests are run, which decides their price."""

    BATCH = "batch"
    FLEX = "flex"
    STANDARD = "standard"


class Modality(StrEnum):
    """The kind of content that tokens stand for."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


class Price(NamedTuple):
    """One row of the table. Prices are in pico-dollars for one token."""

    model: str
    tiers: tuple[Tier, ...]
    modality: Modality
    above: int
    input: int
    cached: int
    output: int | None
    """None where output costs as text does."""
    since: date
    until: date
    """The first day on which it does not count any more."""
    read: date
    source: str


class PriceTable:
    """All prices. A table does not change."""

    def __init__(self, prices: Sequence[Price]) -> None:
        self._prices: dict[str, list[Price]] = defaultdict(list)
        for price in prices:
            self._prices[price.model].append(price)
        beginnings = sorted((name for name in self._prices if name.endswith("*")), key=len, reverse=True)
        self._beginnings = [name.removesuffix("*") for name in beginnings]

    @classmethod
    def read(cls, path: str | None = None) -> Self:
        """Returns the package's table; with a file, its rows replace those of the models that it names.

        Raises `InvalidPrices` for a file that cannot be read or used.
        """
        ours = _rows(files("lowtide.pricing").joinpath("prices.toml").read_bytes(), "prices.toml")
        if path is None:
            return cls(ours)
        try:
            with Path(path).open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "this is no path"
            raise InvalidPrices(f"LOWTIDE_PRICES: the file cannot be read: {reason}") from None
        theirs = _rows(text, "LOWTIDE_PRICES")
        named = {price.model for price in theirs}
        return cls([price for price in ours if price.model not in named] + theirs)

    def find(self, model: str, tier: Tier, on: date, *, prompt: int = 0) -> Mapping[Modality, Price]:
        """Returns the prices of a model by modality; empty where the model's price is not known.

        - `on`: the day on which the request ran. `prompt`: its prompt tokens.
        """
        found: dict[Modality, Price] = {}
        for price in self._of(without_version(model)):
            counts = (
                tier in price.tiers and price.since <= on < price.until and (prompt > price.above or not price.above)
            )
            if counts and (price.modality not in found or price.above > found[price.modality].above):
                found[price.modality] = price
        return found if Modality.TEXT in found else {}

    def steps(self, model: str, tier: Tier) -> set[int]:
        """Returns the numbers of prompt tokens above which a model has other prices, on whatever day."""
        return {price.above for price in self._of(without_version(model)) if tier in price.tiers}

    def nearest(self, model: str, tier: Tier, on: date) -> str | None:
        """Returns the name with a price on that day that a model's name may be meant as; None where there is none.

        The words must be alike. A version must be the same, or the beginning of it: `gemini-3-flash` may be any 3.x. So
        another version, which is another model, is never offered. Of several names, it is the one whose words are the
        most alike, and then the newest.
        """
        from difflib import SequenceMatcher  # deferred: only a mistake needs it

        bare = without_version(model)
        wanted, version = _words_and_version(bare)
        # An alias may point to any version, and what looks like a release may be the version.
        if model.endswith("-latest") or (not version and _NUMBERS.search(model)):
            return None
        found = []
        for name in self._prices:
            words, numbers = _words_and_version(name)
            alike = SequenceMatcher(None, wanted, words).ratio()
            same = "".join(numbers).startswith("".join(version))
            if alike >= _ALIKE and same and not name.endswith("*") and self.find(name, tier, on):
                found.append((alike, list(map(int, numbers)), name))
        return max(found)[2] if found else None

    def _of(self, name: str) -> Sequence[Price]:
        if name in self._prices:
            return self._prices[name]
        beginning = next((each for each in self._beginnings if name.startswith(each)), None)
        return () if beginning is None else self._prices[f"{beginning}*"]

    @property
    def newest(self) -> date:
        """The day on which the newest row was read."""
        return max(price.read for prices in self._prices.values() for price in prices)


def _words_and_version(name: str) -> tuple[str, list[str]]:
    """The words of a name, and the numbers in it."""
    return _BETWEEN_WORDS.sub("-", name), _NUMBERS.findall(name)


def _rows(text: bytes, name: str) -> list[Price]:
    """The rows of a file, checked. Raises `InvalidPrices`."""
    if len(text) > _MAX_BYTES:
        raise InvalidPrices(f"{name}: more than the {_MAX_BYTES:,} bytes that a price table may have")
    try:
        found = tomllib.loads(text.decode(), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise InvalidPrices(f"{name}: not TOML: {error}"[:500]) from None
    rows = found.get("price")
    if set(found) != {"price"} or not isinstance(rows, list) or not rows:
        raise InvalidPrices(f"{name}: write one array `price` with a row for each price, and nothing else")
    read = [_Row(name, number, row).price() for number, row in enumerate(rows, 1)]
    _check_together(name, read)
    return read


class _Row:
    """One row as the file has it."""

    def __init__(self, file: str, number: int, row: object) -> None:
        self._place = f"{file}, row {number}"
        if not isinstance(row, dict):
            raise InvalidPrices(f"{self._place}: write a table, {{ model = ..., ... }}")
        self._row: dict[str, Any] = row
        if isinstance(model := row.get("model"), str):
            self._place += f" ({model:.100})"
        if unknown := sorted(row.keys() - _COLUMNS):
            raise InvalidPrices(f"{self._place}: no column is called {unknown[0]!r:.100}")

    def price(self) -> Price:
        """The row. Raises `InvalidPrices`."""
        model = self._text("model")
        beginning, star = model.removesuffix("*"), "*" * model.endswith("*")
        if not beginning or "*" in beginning:
            raise self._wrong("model", 'the name of a model, or its beginning and one `*`, as in "gemini-3.5-*"')
        modality = self._word("modality", Modality, self._row.get("modality", "text"))
        of_text = modality is Modality.TEXT
        since, until = self._day("since", _ALWAYS), self._day("until", _NEVER)
        if since >= until:
            raise self._wrong("until", "a day after `since`")
        return Price(
            model=(beginning.lower() if star else without_version(beginning)) + star,
            tiers=self._tiers(),
            modality=modality,
            above=self._above(),
            input=self._dollars("input"),
            cached=self._dollars("cached"),
            output=self._dollars("output") if of_text or "output" in self._row else None,
            since=since,
            until=until,
            read=self._day("read"),
            source=self._text("source"),
        )

    def _wrong(self, column: str, expected: str) -> InvalidPrices:
        problem = f"write {expected}" if column in self._row else f"the column is missing; write {expected}"
        return InvalidPrices(f"{self._place}, {column}: {problem}")

    def _text(self, column: str) -> str:
        value = self._row.get(column)
        if not isinstance(value, str) or not value.strip() or len(value) > 500:
            raise self._wrong(column, "a text of at most 500 characters")
        return value.strip()

    def _word(self, column: str, words: type[Value], value: object) -> Value:
        if not isinstance(value, str) or value not in set(words):
            raise self._wrong(column, " or ".join(words))
        return words(value)

    def _tiers(self) -> tuple[Tier, ...]:
        value = self._row.get("tiers")
        if not isinstance(value, list) or not value:
            raise self._wrong("tiers", 'a list such as ["batch", "flex"]')
        return tuple(self._word("tiers", Tier, one) for one in value)

    def _above(self) -> int:
        value = self._row.get("above", 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong("above", "a whole number of tokens, 0 or more")
        return value

    def _dollars(self, column: str) -> int:
        """The price in pico-dollars for one token."""
        value = self._row.get(column)
        expected = f"US dollars for 1,000,000 tokens, from 0 to {_MAX_DOLLARS:,}, with at most {_DECIMALS} decimals"
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            raise self._wrong(column, expected)
        dollars = Decimal(value)
        if not dollars.is_finite() or not 0 <= dollars <= _MAX_DOLLARS or dollars != round(dollars, _DECIMALS):
            raise self._wrong(column, expected)
        return int(dollars.scaleb(_DECIMALS))

    def _day(self, column: str, default: date | None = None) -> date:
        value = self._row.get(column, default)
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self._wrong(column, "a day without quotes, as in 2026-10-07")
        return value


def _check_together(file: str, prices: Sequence[Price]) -> None:
    """Refuses two rows that count for the same tokens on the same day, and a model without prices for text."""
    places: dict[tuple[str, Tier, Modality, int], list[tuple[Price, int]]] = defaultdict(list)
    for number, price in enumerate(prices, 1):
        for tier in price.tiers:
            places[price.model, tier, price.modality, price.above].append((price, number))
    for (model, tier, modality, _), found in places.items():
        for (price, number), (later, other) in pairwise(sorted(found, key=lambda each: each[0].since)):
            if later.since < price.until:
                day = "the same days" if later.since == _ALWAYS else f"{later.since}"
                raise InvalidPrices(
                    f"{file}, rows {number} and {other} ({model}) both count for {modality} of the tier {tier} on "
                    f"{day}: give one of them another `since`, `until` or `above`"
                )
        if (model, tier, Modality.TEXT, 0) not in places:
            raise InvalidPrices(
                f"{file}, row {found[0][1]} ({model}): the tier {tier} has no row with the modality text and no `above`"
            )
