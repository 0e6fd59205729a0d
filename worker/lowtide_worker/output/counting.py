"""The counts of a segment: its results, their reasons and models, and the tokens of all its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

from lowtide.models import Usage
from lowtide.protocol.records import ROWS
from lowtide.states import ResultStatus
from lowtide_worker.output.joining import Joined, Row
from lowtide_worker.output.judging import Outcome
from lowtide_worker.state import Tally

_MAX_NAME_CHARS = 100
"""Most characters of a reason or a model's name that are counted."""


def tally(rows: Sequence[Row] | Sequence[Joined], results: Sequence[Joined], odd: dict[str, int]) -> Tally:
    """Returns the counts of a segment.

    - `rows`: all its rows. The provider was paid for each of them.
    - `results`: those that became results. Their tokens include those of earlier jobs, which were paid before.
    - `odd`: counts of the other rows, by the names of the batch's counters.
    """
    outcomes = [item.outcome for item in results]
    statuses = [outcome.status for outcome in outcomes]
    by_status: dict[str, int] = {status: count for status in ResultStatus if (count := statuses.count(status))}
    used = _tokens(outcomes)
    # Nearly always every row is a result.
    judged = outcomes if len(rows) == len(results) else [row.outcome for row in rows]
    paid = used if judged is outcomes else _tokens(judged)
    if earlier := [item.earlier for item in results if item.earlier is not None]:
        used = _sums([outcome.usage for outcome in outcomes if outcome.usage is not None] + earlier)
    reasons = (outcome.error.reason for outcome in outcomes if outcome.error is not None)
    models = map(attrgetter("model"), outcomes)
    return Tally(
        counts={**by_status, **used, **odd},
        paid={ROWS: sum(outcome.usage is not None for outcome in judged), **paid},
        reasons=_counted(reasons) if by_status.get(ResultStatus.SUCCEEDED) != len(outcomes) else {},
        models=_counted(models),
    )


def _tokens(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return _sums([outcome.usage for outcome in outcomes if outcome.usage is not None])


def _sums(usages: Sequence[Usage]) -> dict[str, int]:
    return {name: sum(map(attrgetter(name), usages)) for name in Usage.__struct_fields__}


def _counted(names: Iterable[str | None]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, count in Counter(names).items():
        if name:
            counts[name[:_MAX_NAME_CHARS]] += count
    return counts
