"""The daily costs: what was paid for the rows of one UTC day, by model, provider, account and label.

The hash of a day, `lowtide:costs:<YYYY-MM-DD>`, has a field `<dimension>|<name>|<measure>` for each amount that is not
0. record.lua adds to it in the step that counts a segment. The day is that on which the rows' job was seen to have
ended, by Redis's clock; the prices are those of the same day. Of each dimension the first `MOST_NAMES` names of a day
are counted by themselves, and all others under `OTHER_NAMES`. A label that has a budget is always counted by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum

import msgspec

KEPT_SECONDS = 400 * 86_400
"""Time for which a day is kept after its last change, in seconds."""
MOST_NAMES = 500
"""Names of one dimension that are counted by themselves on one day."""
OTHER_NAMES = "others"
"""The name under which all further ones are counted."""
ACCOUNT = "default"
"""The name of the account at the provider, of which there is one."""
NAMES = "names"
"""The dimension of record.lua's own counters: of how many names of each dimension the day has."""


class CostDimension(StrEnum):
    """The groups by which rows are counted."""

    MODEL = "model"
    """The model that answered, without its version."""
    PROVIDER = "provider"
    ACCOUNT = "account"
    LABEL = "label"
    """Each label of the rows' batch; the name is `label_name` of it."""


class DayCosts(msgspec.Struct, frozen=True, kw_only=True):
    """The amounts of one name on one day. The names of the fields are the measures."""

    requests: int = 0
    """Rows that the provider answered, whether they became results or not."""
    unpriced: int = 0
    """Those of them whose price is not known."""
    input: int = 0
    """Tokens of prompts and of the results of tools."""
    output: int = 0
    """Tokens of answers and thoughts."""
    cost: int = 0
    """Paid for the rows whose price is known, in nano-dollars."""

    def __add__(self, other: DayCosts) -> DayCosts:
        """Returns the amounts of both."""
        return DayCosts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


MEASURES = DayCosts.__struct_fields__


def label_name(label: str, value: str) -> str:
    """Returns the name of a label and its value in the dimension `label`."""
    return f"{label}={value}"


def day_of(seconds: float) -> date:
    """Returns the UTC day of a time in Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).date()


def read_day(found: Mapping[bytes, bytes]) -> dict[tuple[CostDimension, str], DayCosts]:
    """Returns the amounts of a day's hash, by dimension and name. Odd fields are left out."""
    amounts: dict[tuple[CostDimension, str], dict[str, int]] = defaultdict(dict)
    for field, value in found.items():
        dimension, _, rest = field.decode(errors="replace").partition("|")
        name, _, measure = rest.rpartition("|")
        if dimension in set(CostDimension) and measure in MEASURES and value.removeprefix(b"-").isdigit():
            amounts[CostDimension(dimension), name][measure] = int(value)
    return {key: DayCosts(**found) for key, found in amounts.items()}
