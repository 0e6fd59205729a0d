"""`lowtide costs`: what was paid, by model, provider, account or label, and what is left of the budgets."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import typer

from lowtide import Settings
from lowtide.budgets import Period, dollars, plain_dollars
from lowtide.protocol.daily_costs import OTHER_NAMES, CostDimension, DayCosts
from lowtide.store import DayAmounts, Store
from lowtide.text import counted
from lowtide_cli.terminal.layout import Column, Row, print_rows
from lowtide_cli.terminal.output import print_json, quiet_line, stdout
from lowtide_cli.terminal.spreadsheet import csv_line

_MOST_DAYS = 400
_WITHOUT = "(without "
"""The start of the name of a row for all that has not the label."""
_SINCE = re.compile(r"(\d{1,3})d", re.ASCII)


class CostRow(msgspec.Struct, frozen=True, kw_only=True):
    """The amounts of one name in all days."""

    name: str
    requests: int
    unpriced: int
    input: int
    output: int
    cost: int
    """In nano-dollars."""


class BudgetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in its present period. Amounts are in nano-dollars."""

    budget: str
    period: Period
    limit: int
    spent: int
    reserved: int
    left: int
    used: bool
    """Whether any of the last 400 days has a row with this label."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """All that `lowtide costs` shows."""

    by: str
    since: str
    until: str
    rows: list[CostRow]
    total: CostRow
    budgets: list[BudgetRow]


def show_costs(*, by: str, since: str, as_json: bool, as_csv: bool) -> None:
    """Prints what was paid since a day, and the budgets of the settings."""
    today = datetime.now(UTC).date()
    first = _first_day(since, today)
    dimension, label = _grouped(by)
    settings = Settings()
    # Budgets are shown for their present period, and marked where no day has their label.
    earliest = today - timedelta(days=_MOST_DAYS - 1) if settings.budgets else first
    latest = Period.MONTH.days(today)[-1] if settings.budgets else today
    store = Store(settings)
    days = store.money.daily_costs([earliest + timedelta(days=at) for at in range((latest - earliest).days + 1)])
    rows = _rows(dimension, label, [amounts for day, amounts in days.items() if first <= day <= today])
    found = Costs(
        by=by,
        since=first.isoformat(),
        until=today.isoformat(),
        rows=rows,
        total=_row("total", _sum(rows)),
        budgets=list(_budgets(settings, store, days, today)),
    )
    if as_json:
        print_json(found)
    elif as_csv:
        _write_csv(found)
    else:
        _show(found)


def _first_day(since: str, today: date) -> date:
    if match := _SINCE.fullmatch(since):
        first = today - timedelta(days=max(0, int(match[1]) - 1))
    else:
        try:
            first = date.fromisoformat(since)
        except ValueError:
            words = "write a number of days, as 30d, or a day, as 2026-11-01"
            raise typer.BadParameter(words, param_hint="--since") from None
    if first > today:
        raise typer.BadParameter(f"{first} is in the future; today is {today} (UTC)", param_hint="--since")
    if (today - first).days >= _MOST_DAYS:
        raise typer.BadParameter(f"costs are kept for {_MOST_DAYS} days, until today", param_hint="--since")
    return first


def _grouped(by: str) -> tuple[CostDimension, str | None]:
    name, _, label = by.partition(":")
    if name not in set(CostDimension) or (name == CostDimension.LABEL) != bool(label):
        words = "write model, provider, account, or label and its name, as label:team"
        raise typer.BadParameter(words, param_hint="--by")
    return CostDimension(name), label or None


def _rows(dimension: CostDimension, label: str | None, days: Sequence[DayAmounts]) -> list[CostRow]:
    """The sums of each name, the most expensive first."""
    found: dict[str, list[DayCosts]] = defaultdict(list)
    prefix = "" if label is None else f"{label}="
    for amounts in days:
        for (kind, name), costs in amounts.items():
            if kind is dimension and name.startswith(prefix):
                found[name.removeprefix(prefix)].append(costs)
    rows = [_row(name, _sum(costs)) for name, costs in found.items()]
    if label is not None and (rest := _without(label, rows, days)):
        rows.append(rest)
    return sorted(rows, key=lambda row: (-row.cost, row.name))


def _without(label: str, rows: Sequence[CostRow], days: Sequence[DayAmounts]) -> CostRow | None:
    """The amounts of all that is in no row of a label, so that the total is that of all models; None for nothing."""
    models = [costs for amounts in days for (kind, _), costs in amounts.items() if kind is CostDimension.MODEL]
    every, shown = _sum(models), _sum(rows)
    left = DayCosts(**{name: getattr(every, name) - getattr(shown, name) for name in DayCosts.__struct_fields__})
    # Beyond a number of labels a day, further ones are counted together: some may be of this label.
    others = any((CostDimension.LABEL, OTHER_NAMES) in amounts for amounts in days)
    return None if left == DayCosts() else _row(f"{_WITHOUT}{label}{' of its own' * others})", left)


def _budgets(settings: Settings, store: Store, days: dict[date, DayAmounts], today: date) -> Iterator[BudgetRow]:
    held = store.money.reserved(settings.budgets)
    for name, limits in settings.budgets.items():
        key = CostDimension.LABEL, name
        used = held[name] > 0 or any(key in amounts for amounts in days.values())
        for period, limit in limits.items():
            spent = sum(days[day][key].cost for day in period.days(today) if key in days.get(day, {}))
            left = max(0, limit - spent - held[name])
            yield BudgetRow(
                budget=name, period=period, limit=limit, spent=spent, reserved=held[name], left=left, used=used
            )


def _sum(costs: Sequence[DayCosts | CostRow]) -> DayCosts:
    return DayCosts(**{name: sum(getattr(one, name) for one in costs) for name in DayCosts.__struct_fields__})


def _row(name: str, costs: DayCosts) -> CostRow:
    return CostRow(name=name, **msgspec.structs.asdict(costs))


_COLUMNS = ("requests", "input tokens", "output tokens", "cost")


def _show(found: Costs) -> None:
    console = stdout()
    console.print(f"Paid from {found.since} to {found.until} (UTC days)", soft_wrap=True)
    columns = [Column(found.by.partition(":")[2] or found.by), *(Column(name, right=True) for name in _COLUMNS)]
    rows = (Row(_cells(row), _note(row), _subject(row)) for row in found.rows)
    print_rows(console, columns, [*rows, Row(_cells(found.total))])
    if not found.budgets:
        return
    console.print()
    names = ("limit", "paid", "reserved", "left")
    columns = [Column("budget"), Column("period"), *(Column(name, right=True) for name in names)]
    print_rows(console, columns, [_budget_row(row) for row in found.budgets])


def _cells(row: CostRow) -> list[str]:
    unknown = row.unpriced and not row.cost
    return [
        row.name,
        f"{row.requests:,}",
        f"{row.input:,}",
        f"{row.output:,}",
        "unknown" if unknown else dollars(row.cost),
    ]


def _note(row: CostRow) -> str:
    return f"{counted(row.unpriced, 'request')} without a known price: not in the cost" if row.unpriced else ""


def _subject(row: CostRow) -> str:
    """The name of a row for its note; "" for the name of its column and its own."""
    return row.name.strip("()") if row.name.startswith(_WITHOUT) else ""


def _budget_row(row: BudgetRow) -> Row:
    amounts = [dollars(amount) for amount in (row.limit, row.spent, row.reserved, row.left)]
    note = "" if row.used else "no batch has had this label in 400 days"
    return Row([row.budget, str(row.period), *amounts], note)


def _write_csv(found: Costs) -> None:
    amounts = ([*map(str, msgspec.structs.astuple(row)[:-1]), plain_dollars(row.cost)] for row in found.rows)
    # A file or another program gets the bytes unchanged.
    shown = quiet_line if sys.stdout.isatty() else bytes
    for cells in (CostRow.__struct_fields__, *amounts):
        sys.stdout.buffer.write(shown(csv_line(cells).encode(errors="replace")))
    sys.stdout.buffer.flush()
