"""The counts of a segment: its results, their reasons and models, and what all its rows cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from operator import attrgetter

from lowtide.models import Usage
from lowtide.protocol import BatchRecord
from lowtide.protocol.daily_costs import ACCOUNT, CostDimension, DayCosts, label_name
from lowtide.protocol.records import COST, PRICED, ROWS, UNPRICED
from lowtide.same_model import without_version
from lowtide.states import ResultStatus
from lowtide_worker.output.joining import Joined, Row
from lowtide_worker.state import DailyCost, Tally

_MAX_NAME_CHARS = 100
"""Most characters of a reason or a model's name that are counted."""


def tally(paid: Sequence[Row | Joined], results: Sequence[Joined], odd: dict[str, int]) -> Tally:
    """Returns the counts of a segment.

    - `paid`: its rows that are counted as paid. Nearly always they are its results, and then the same list.
    - `results`: those that became results. Their tokens include those of earlier jobs, which were paid before.
    - `odd`: counts of the other rows, by the names of the batch's counters.
    """
    outcomes = [item.outcome for item in results]
    statuses = [outcome.status for outcome in outcomes]
    by_status: dict[str, int] = {status: count for status in ResultStatus if (count := statuses.count(status))}
    of_paid = _amounts(paid)
    if paid is results and not [item for item in results if item.earlier is not None]:
        used = {name: of_paid[name] for name in (*Usage.__struct_fields__, COST)}
    else:
        used = _tokens([usage for item in results if (usage := item.usage) is not None])
        used[COST] = sum(cost for item in results if (cost := item.whole_cost) is not None)
    reasons = (outcome.error.reason for outcome in outcomes if outcome.error is not None)
    models = map(attrgetter("model"), outcomes)
    return Tally(
        counts={**by_status, **used, **odd},
        paid=of_paid,
        reasons=_counted(reasons) if by_status.get(ResultStatus.SUCCEEDED) != len(outcomes) else {},
        models=_counted(models),
    )


def daily_costs(paid: Sequence[Row | Joined], total: DayCosts, batch: BatchRecord) -> list[DailyCost]:
    """Returns what rows add to the costs of a day, by model, provider and account. `total`: their amounts."""
    names = {row.outcome.model for row in paid}
    models: dict[str, DayCosts] = defaultdict(DayCosts)
    for name in names:
        of_model = total if len(names) == 1 else day_costs([row for row in paid if row.outcome.model == name])
        models[without_version(name or batch.model)[:_MAX_NAME_CHARS]] += of_model
    found = [DailyCost(CostDimension.MODEL, name, amounts) for name, amounts in models.items()]
    found += [
        DailyCost(CostDimension.PROVIDER, str(batch.provider), total),
        DailyCost(CostDimension.ACCOUNT, ACCOUNT, total),
    ]
    return [one for one in found if one.amounts.requests]


def daily_costs_of_labels(amounts: DayCosts, labels: Mapping[str, str], budgets: Container[str]) -> list[DailyCost]:
    """Returns what the rows of a batch add to the costs of a day, by its labels; those in `budgets` have a budget."""
    if not amounts.requests:
        return []
    names = [label_name(*label) for label in labels.items()]
    return [DailyCost(CostDimension.LABEL, name, amounts, always=name in budgets) for name in names]


def day_costs(rows: Sequence[Row | Joined], amounts: Mapping[str, int] | None = None) -> DayCosts:
    """Returns the amounts of some rows. A row that is not billed counts nowhere. `amounts`: `Tally.paid`, if known."""
    amounts = _amounts(rows) if amounts is None else amounts
    requests = amounts[ROWS]
    if requests < len(rows):
        requests = sum(row.cost is None or row.outcome.usage is not None for row in rows)
    return DayCosts(
        requests=requests,
        unpriced=amounts[UNPRICED],
        input=amounts["prompt_token_count"] + amounts["tool_use_prompt_token_count"],
        output=amounts["candidates_token_count"] + amounts["thoughts_token_count"],
        cost=amounts[COST],
    )


def _amounts(rows: Sequence[Row | Joined]) -> dict[str, int]:
    """How many rows report their tokens, their tokens and cost, and how many have a price, by the names of `PAID`."""
    usages = [usage for row in rows if (usage := row.outcome.usage) is not None]
    costs = [cost for row in rows if (cost := row.cost) is not None]
    unpriced, priced = len(rows) - len(costs), len(usages)
    if unpriced:
        priced = sum(row.cost is not None and row.outcome.usage is not None for row in rows)
    return {ROWS: len(usages), **_tokens(usages), COST: sum(costs), PRICED: priced, UNPRICED: unpriced}


def _tokens(known: Sequence[Usage]) -> dict[str, int]:
    return {name: sum(map(attrgetter(name), known)) for name in Usage.__struct_fields__}


def _counted(names: Iterable[str | None]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, count in Counter(names).items():
        if name:
            counts[name[:_MAX_NAME_CHARS]] += count
    return counts
