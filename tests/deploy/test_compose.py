"""The monitoring profile of the compose file: its parts name each other as they are mounted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


SERVICES: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]
MOUNTS: dict[str, dict[str, Path]] = {
    name: {there: ROOT / here for here, there in (volume.split(":")[:2] for volume in service.get("volumes", []))}
    for name, service in SERVICES.items()
}


def found(service: str, path: str) -> Path:
    """The file of this project that a service sees there."""
    [(there, here)] = [(one, at) for one, at in MOUNTS[service].items() if path.startswith(one) and at.exists()]
    return here / path.removeprefix(there).lstrip("/")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing: apt-get install prometheus")
def test_the_configuration_of_prometheus_is_valid() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", PROMETHEUS], capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_prometheus_reads_the_rules_and_scrapes_the_metrics() -> None:
    [argument] = [one for one in SERVICES["prometheus"]["command"] if one.startswith("--config.file=")]
    assert found("prometheus", argument.partition("=")[2]).samefile(PROMETHEUS)
    config = read(PROMETHEUS)
    assert [found("prometheus", path).name for path in config["rule_files"]] == ["lowtide.rules.yml"]
    [job] = config["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert f"--port={port}" in SERVICES[service]["command"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    folder = found("grafana", "/etc/grafana/provisioning")
    [source] = read(folder / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = read(folder / "dashboards" / "lowtide.yml")["providers"]
    dashboard = found("grafana", f"{provider['options']['path']}/lowtide.json")
    assert json.loads(dashboard.read_text())["uid"] == "lowtide"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "emulator"])
def test_every_service_has_a_probe_and_listens_on_this_machine_only(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize(
    ("name", "profile"),
    [("metrics", "monitoring"), ("prometheus", "monitoring"), ("grafana", "monitoring"), ("hooks", "hooks")],
)
def test_more_than_the_workers_runs_only_when_it_is_asked_for(name: str, profile: str) -> None:
    assert SERVICES[name]["profiles"] == [profile]


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "env_file" in service])
def test_what_env_says_is_not_overridden(name: str) -> None:
    given = SERVICES[name]["environment"]

    # The probe of each container asks on its port.
    assert {key for key, value in given.items() if f"${{{key}:" not in str(value)} <= {"LOWTIDE_HEALTH_PORT"}


@pytest.mark.parametrize("password", ["", "chosen"])
def test_grafana_starts_only_with_a_password_that_was_chosen(password: str) -> None:
    grafana = SERVICES["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    command = [part.replace("$$", "$").replace("/run.sh", "echo started") for part in grafana["entrypoint"]]

    done = subprocess.run(
        command, env={"GF_SECURITY_ADMIN_PASSWORD": password}, capture_output=True, text=True, check=False
    )

    told = ("", "set GRAFANA_PASSWORD in .env\n") if not password else ("started\n", "")
    assert (done.stdout, done.stderr) == told
    assert bool(done.returncode) is not bool(password)
