"""Alert rules and dashboard: each alert fires when it should and only then, and each query runs on a live scrape."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest
from ruamel.yaml import YAML
from tests.integration.blurbs import MODEL, blurbs
from tests.ports import quiet_port
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide_worker.metrics.catalogue import CATALOGUE, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "lowtide.rules.yml"
ALERTS: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(RULES.read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "lowtide.json").read_text())
QUERIES = {
    **{alert["alert"]: str(alert["expr"]) for alert in ALERTS},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "5m")
        .replace("$provider", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
}
SUFFIXES = {
    Kind.GAUGE: ("",),
    Kind.COUNTER: ("",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
}
KNOWN = {metric.name + suffix: metric for metric in CATALOGUE for suffix in SUFFIXES[metric.kind]}
_open = build_opener(ProxyHandler({})).open
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is missing: apt-get install prometheus"
)
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is missing")

CASES = {
    "LowtideStoreDown": ({"lowtide_store_up": "0x10"}, {"lowtide_store_up": "1x10"}, 5),
    "LowtideMetricsAbsent": ({"up": "1x20"}, {"lowtide_store_up": "1x20"}, 10),
    "LowtideClockLag": (
        {'lowtide_clock_lag_seconds{queue="lowtide.jobs"}': "0+60x30"},
        {'lowtide_clock_lag_seconds{queue="lowtide.jobs"}': "0 300 0 300 0 5x30"},
        20,
    ),
    "LowtideQueueUnserved": (
        {
            'lowtide_queue_messages{queue="lowtide.results"}': "5x60",
            'lowtide_stage_duration_seconds_count{stage="lowtide.poll"}': "0+9x60",
        },
        {
            'lowtide_queue_messages{queue="lowtide.results"}': "5x60",
            'lowtide_queue_messages{queue="lowtide.jobs"}': "0 3 0 3x60",
            'lowtide_stage_duration_seconds_count{stage="lowtide.deliver"}': "0+9x60",
            'lowtide_stage_duration_seconds_count{stage="lowtide.poll"}': "0+9x60",
        },
        45,
    ),
    "LowtideSegmentsParked": (
        {'lowtide_segments{state="parked"}': "2x20"},
        {'lowtide_segments{state="parked"}': "0x20", 'lowtide_segments{state="undelivered"}': "9x20"},
        10,
    ),
    "LowtideBatchEventsParked": (
        {'lowtide_batch_events{state="parked"}': "1x20"},
        {'lowtide_batch_events{state="parked"}': "0 1 1 0x20", 'lowtide_batch_events{state="waiting"}': "9x20"},
        10,
    ),
    "LowtideDeadLetters": ({"lowtide_dead_letter_messages": "1x20"}, {"lowtide_dead_letter_messages": "0x20"}, 10),
    "LowtideDeliveriesStalled": (
        # Another handler takes segments meanwhile.
        {"lowtide_oldest_undelivered_segment_seconds": "0+60x120", "lowtide_delivery_delay_seconds_count": "7+1x120"},
        {"lowtide_oldest_undelivered_segment_seconds": "3500 3550 3650 30 80x120"},
        90,
    ),
    "LowtideSinglesNearLimit": (
        {"lowtide_singles_waiting": "850x20", "lowtide_singles_waiting_limit": "1000x20"},
        {"lowtide_singles_waiting": "790 900 790x20", "lowtide_singles_waiting_limit": "1000x20"},
        10,
    ),
    "LowtideJobsWait": (
        {'lowtide_oldest_waiting_job_seconds{provider="gemini",model="m"}': "86000+60x120"},
        {'lowtide_oldest_waiting_job_seconds{provider="gemini",model="m"}': "80000+60x100 0x60"},
        110,
    ),
    "LowtideHooksSilent": (
        {"lowtide_hooks_silent": "0 1x60"},
        {"lowtide_hooks_silent": "0 1x20 0 1x20"},
        45,
    ),
    "LowtideCredentialsDenied": (
        {'lowtide_provider_errors_total{provider="gemini",call="get",error="Denied"}': "0+1x60"},
        {'lowtide_provider_errors_total{provider="gemini",call="get",error="Unavailable"}': "0+1x60"},
        30,
    ),
    "LowtideQuotaUsedUp": (
        {'lowtide_provider_errors_total{provider="gemini",call="create",error="Throttled"}': "0+1x200"},
        {'lowtide_provider_errors_total{provider="gemini",call="create",error="Throttled"}': "0 1 1x200"},
        150,
    ),
    "LowtideProviderUnavailable": (
        {
            'lowtide_provider_errors_total{provider="gemini",call="get",error="Unavailable"}': "0+8x60",
            'lowtide_provider_call_duration_seconds_count{provider="gemini",call="get"}': "0+10x60",
        },
        {
            'lowtide_provider_errors_total{provider="gemini",call="get",error="Unavailable"}': "0+1x60",
            'lowtide_provider_call_duration_seconds_count{provider="gemini",call="get"}': "0+10x60",
        },
        45,
    ),
    "LowtideJobOverdue": (
        {'lowtide_oldest_live_job_seconds{provider="gemini"}': "99000+60x90"},
        {'lowtide_oldest_live_job_seconds{provider="gemini"}': "9000+60x90"},
        60,
    ),
    "LowtideBudgetUsedUp": (
        {
            'lowtide_budget_waiting_jobs{budget="team=x"}': "0 3x60",
            'lowtide_budget_reserved_dollars{budget="team=x"}': "2x60",
            'lowtide_budget_spent_dollars{budget="team=x",period="day"}': "48x60",
            'lowtide_budget_limit_dollars{budget="team=x",period="day"}': "50x60",
        },
        {
            # What jobs under way hold becomes free when they cost less, and another budget has no work that waits.
            'lowtide_budget_waiting_jobs{budget="team=x"}': "3x60",
            'lowtide_budget_reserved_dollars{budget="team=x"}': "40x60",
            'lowtide_budget_spent_dollars{budget="team=x",period="day"}': "10x60",
            'lowtide_budget_limit_dollars{budget="team=x",period="day"}': "50x60",
            'lowtide_budget_waiting_jobs{budget="team=y"}': "0x60",
            'lowtide_budget_reserved_dollars{budget="team=y"}': "0x60",
            'lowtide_budget_spent_dollars{budget="team=y",period="day"}': "50x60",
            'lowtide_budget_limit_dollars{budget="team=y",period="day"}': "50x60",
        },
        30,
    ),
    "LowtideRequestsFail": (
        {
            'lowtide_results_total{status="succeeded",reason=""}': "0+50x90",
            'lowtide_results_total{status="failed",reason="SAFETY"}': "0+20x90",
        },
        {
            'lowtide_results_total{status="succeeded",reason=""}': "0+500x90",
            'lowtide_results_total{status="failed",reason="SAFETY"}': "0+20x90",
        },
        60,
    ),
    "LowtideStagesFail": (
        {'lowtide_stage_failures_total{stage="lowtide.poll",error="ValueError"}': "0+2x60"},
        {'lowtide_stage_failures_total{stage="lowtide.poll",error="Unavailable"}': "0+2x60"},
        40,
    ),
}
"""Of each alert: series by which it fires, series by which it does not, and when it is checked, in minutes."""


def test_each_alert_has_a_case() -> None:
    assert [alert["alert"] for alert in ALERTS] == list(CASES)


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description"}


@needs_promtool
def test_the_rules_are_valid() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    firing, quiet, minutes = CASES[alert]
    count = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": count, "eval_time": f"{minutes}m", "exp_samples": samples}],
        }
        for series, samples in ((firing, [{"labels": "{}", "value": 1}]), (quiet, []))
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))

    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_labels_that_exist(query: str) -> None:
    text = QUERIES[query]
    used = re.findall(r"\b(lowtide_\w+)(?:\{([^}]*)\})?", text)
    assert used
    for name, matchers in used:
        labels = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers)
        assert name in KNOWN
        assert set(labels) <= set(KNOWN[name].labels)
    grouped = [label.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for label in group.split(",")]
    assert set(grouped) <= {"le"} | {label for name, _ in used for label in KNOWN[name].labels}


def test_the_dashboard_shows_every_metric_and_no_two_panels_overlap() -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert [metric.name for metric in CATALOGUE if metric.name not in shown] == []
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


BUDGETS = '{"team=x": {"day": 50, "month": 800}}'
Ask = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a real Prometheus that scrapes a Lowtide on which much has happened."""
    folder = tmp_path_factory.mktemp("prometheus")
    processes: list[subprocess.Popen[bytes]] = []
    metrics, port = quiet_port(), quiet_port()
    with (
        Stack(folder / "stack", LOWTIDE_MAX_DELIVERY_ATTEMPTS="1", LOWTIDE_BUDGETS=BUDGETS) as stack,
        (folder / "log").open("wb") as log,
    ):

        def start(*command: str) -> None:
            processes.append(subprocess.Popen(command, env=stack.env, cwd=folder, stdout=log, stderr=log))

        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "lowtide", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        try:
            start(sys.executable, "-m", "lowtide_cli", "metrics", f"--port={metrics}")
            start(
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            )
            wait_until(lambda: _ask(port, "lowtide_store_up == 1"))
            stack.worker("-P", "threads", "-c", "4", LOWTIDE_MAX_ENQUEUED_TOKENS="tier-1")
            for kind in ("row_error_details", "all_rows_fail"):
                stack.emulator.set_faults(
                    [
                        {"on": "batches.create", "kind": "status", "times": 1, "params": {"code": 429}},
                        {
                            "on": "job",
                            "kind": kind,
                            "times": 1,
                            "params": {"code": 3 if kind == "all_rows_fail" else 13},
                        },
                        {"on": "batches.get", "kind": "status", "times": 1, "params": {"code": 401}},
                    ]
                )
                stack.queue().submit(blurbs(3), model=MODEL, on_result="stream://x").wait(timeout=180)
            yield lambda query: _ask(port, query) or []
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def _ask(port: int, query: str) -> list[Any] | None:
    try:
        with _open(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}", timeout=10) as reply:
            answer = json.load(reply)
    except HTTPError as error:
        if error.code == 503:
            return None  # it is still starting
        raise AssertionError(error.read().decode()) from None
    except OSError:
        return None
    assert answer["status"] == "success"
    result: list[Any] = answer["data"]["result"]
    return result


PANELS = [query for query in QUERIES if query not in CASES]


@needs_prometheus
@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_something_of_a_live_scrape(ask: Ask, panel: str) -> None:
    # A rate needs a second scrape.
    assert wait_until(lambda: ask(QUERIES[panel]))


@needs_prometheus
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_runs_on_a_live_scrape(ask: Ask, alert: str) -> None:
    ask(QUERIES[alert])
