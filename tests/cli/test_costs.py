"""Costs and budgets on the command line, against a real stack."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import redis
from tests.cli.helpers import MODEL, Cli, requests
from tests.waiting import wait_until

from lowtide import BatchQueue
from lowtide.protocol import keys

BUDGETS = json.dumps({"team=costs": {"day": 1, "month": "2.5"}, "team=nobody": {"month": 1}})


def test_costs_are_shown_by_label_and_beside_the_budgets(cli: Cli, queue: BatchQueue) -> None:
    batches = [
        queue.submit(requests(count), model=MODEL, labels={"team": team}) for count, team in ((3, "costs"), (2, "=o"))
    ]
    status, _ = (batch.wait(timeout=180) for batch in batches)
    assert status.paid_cost is not None
    cli = Cli({**cli.environment, "LOWTIDE_BUDGETS": BUDGETS}, cli.folder)
    with redis.Redis.from_url(cli.environment["LOWTIDE_REDIS_URL"]) as client:
        # Of further labels than are counted by themselves, and of work without this label.
        for field in ("label|others|cost", f"model|{MODEL}|cost"):
            client.hincrby(keys.costs(datetime.now(UTC).date()), field, 7)

    as_json, shown, *wrong = cli.all(
        ["costs", "--by", "label:team", "--json"],
        ["costs", "--since", "400d"],
        ["costs", "--by", "team"],
        ["costs", "--since", "401d"],
        ["costs", "--since", "yesterday"],
        ["costs", "--since", "9999-12-31"],
    )

    def agree() -> bool:
        by_label = ["costs", "--by", "label:team"]
        as_json, as_csv, by_model = cli.all([*by_label, "--json"], [*by_label, "--csv"], ["costs", "--json"])
        # A spreadsheet would run "=o" as a formula.
        rows = {row["name"].replace("=o", "'=o"): row["cost"] for row in as_json.json()["rows"]}
        of_csv = {row["name"]: Decimal(row["cost"]) * 10**9 for row in csv.DictReader(io.StringIO(as_csv.out))}
        return rows == of_csv and bool(as_json.json()["total"] == by_model.json()["total"])

    found = as_json.json()
    rows = {row["name"]: row for row in found["rows"]}
    assert rows.keys() >= {"costs", "=o"}
    assert rows["(without team of its own)"]["cost"] >= 7
    # What other tests have left running may cost something between two commands.
    wait_until(agree, what="all forms say the same")
    assert (rows["costs"]["requests"], rows["costs"]["cost"]) == (3, status.paid_cost)
    assert found["total"]["cost"] == sum(row["cost"] for row in found["rows"])
    day, month, nobody = found["budgets"]
    assert (day["budget"], day["period"], day["limit"], day["spent"]) == ("team=costs", "day", 10**9, status.paid_cost)
    assert (month["limit"], month["left"], month["used"]) == (25 * 10**8, 25 * 10**8 - status.paid_cost, True)
    assert nobody["used"] is False
    assert MODEL in shown.out
    assert "no batch has had this label" in shown.out
    assert [one.code for one in wrong] == [2, 2, 2, 2]
    assert "is in the future" in wrong[-1].err
    assert [one.err.partition("Invalid value for ")[2].split(":")[0].strip("'") for one in wrong] == [
        "--by",
        "--since",
        "--since",
        "--since",
    ]


def test_a_submit_is_tried_out_and_a_limit_is_given_and_raised(cli: Cli, queue: BatchQueue) -> None:
    file = cli.file([{**request, "config": {"max_output_tokens": 5}} for request in requests(3)])
    tried, fits, waits, limited, refused, too_little = cli.all(
        ["submit", file, "-m", MODEL, "--label", "try=out", "--dry-run", "--json"],
        ["submit", file, "-m", MODEL, "--dry-run", "--max-cost", "0.5"],
        ["submit", file, "-m", MODEL, "--dry-run", "--max-cost", "0.00003"],
        ["submit", file, "-m", MODEL, "--max-cost", "2.50", "--over-budget", "wait", "--on-finished", "shop.done"],
        ["submit", file, "-m", MODEL, "--max-cost", "0.0000001"],
        ["submit", file, "-m", MODEL, "--max-cost", "0.0000001", "--dry-run"],
    )

    assert (tried.code, tried.json()["requests"], tried.json()["highest_cost"] > 0) == (0, 3, True)
    assert ": set aside from max_cost and budgets until" in fits.out
    assert "$0.500000: all requests fit" in fits.out
    assert "$0.000030: less than is held" in waits.out
    assert queue.list(labels={"try": "out"}).batches == []
    assert refused.code == 2
    assert "--max-cost" in refused.err
    assert "cheapest request" in refused.err
    assert (too_little.code, too_little.out) == (2, "")
    batch = limited.out.strip()
    raised, wrong = cli.all(["set-max-cost", batch, "7"], ["set-max-cost", batch, "much"])
    shown = cli("status", batch).out
    assert "shop.done" in shown
    assert "$7.00" in shown
    assert (raised.code, wrong.code) == (0, 1)
    assert "write US dollars" in wrong.err
    assert queue.get(batch).status().max_cost == 7 * 10**9
    assert queue.get(batch).wait(timeout=180).succeeded == 3
