"""The Helm chart: Helm renders it, the schemas of Kubernetes accept it, and its pods run what exists."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7
from ruamel.yaml import YAML
from tests.docs.test_facts import FIELDS, NAMES

from lowtide.protocol import Queue
from lowtide_worker.metrics.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "lowtide"
HELM = ROOT / ".chart-tools" / "helm"
VERSIONS = ("1.25.0", "1.37.0")
"""Versions of Kubernetes: the oldest that the chart allows, and the newest with schemas."""
pytestmark = pytest.mark.skipif(
    not HELM.exists() or platform.machine() != "x86_64", reason="Helm is missing: make chart-tools, on Linux on x86-64"
)

NEEDED = {"image": {"repository": "registry.example/lowtide"}, "existingSecret": "lowtide"}
INGRESS = [{"podSelector": {"matchLabels": {"app": "ingress"}}}]
EVERYTHING = {
    **NEEDED,
    "settings": {"LOWTIDE_SEGMENT_ROWS": "2000", "GOOGLE_CLOUD_PROJECT": "p"},
    "flower": {"enabled": True},
    "hooks": {"enabled": True, "replicas": 2, "from": INGRESS},
    "keda": {
        "enabled": True,
        "serverAddress": "http://prometheus:9090",
        "results": {"minReplicas": 0},
        "labels": {"namespace": "prod"},
    },
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"c": "d"},
    "imagePullSecrets": [{"name": "pull"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "redis-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/lowtide", "readOnly": True}],
    "extraEnv": [
        {"name": "AWS_REGION", "value": "eu-central-1"},
        {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "aws", "key": "secret"}}},
    ],
    "extraEnvFrom": [{"secretRef": {"name": "azure"}}],
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443}, {"port": 6379}]}],
    },
    "jobs": {"nodeSelector": {"pool": "x"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
    "spool": {"volume": {"storageClassName": "fast"}},
}
CASES: dict[str, dict[str, Any]] = {
    "least": NEEDED,
    "everything": EVERYTHING,
    "object store": {**EVERYTHING, "spool": {"url": "gs://bucket/spool"}},
    "claim": {**NEEDED, "spool": {"volume": {"existingClaim": "shared"}}, "serviceAccount": {"create": False}},
    "nothing more": {
        **NEEDED,
        **{
            part: {"enabled": False}
            for part in ("metrics", "networkPolicy", "podDisruptionBudget", "flower", "hooks", "keda")
        },
    },
}


def helm(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HELM), "template", "shop", str(CHART), "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def rendered(case: str) -> list[dict[str, Any]]:
    done = helm(CASES[case])
    assert done.returncode == 0, done.stderr
    return [one for one in YAML(typ="safe", pure=True).load_all(done.stdout) if one]


def selects(selector: dict[str, str], labels: dict[str, dict[str, str]]) -> list[str]:
    return [pod for pod, has in labels.items() if selector.items() <= has.items()]


def of_kind(case: str, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in rendered(case) if one["kind"] == kind}


def pods(case: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, deployment in of_kind(case, "Deployment").items():
        yield name, deployment["spec"]["template"]


@cache
def schema(version: str, name: str) -> Any:
    [wheel] = HELM.parent.glob("kubernetes_validate*.whl")
    with zipfile.ZipFile(wheel) as files:
        return json.loads(files.read(f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/{name}"))


def validator(version: str, manifest: dict[str, Any]) -> Draft7Validator:
    group, _, api = manifest["apiVersion"].rpartition("/")
    parts = [manifest["kind"].lower(), *([group.partition(".")[0]] if group else []), api]
    return Draft7Validator(schema(version, f"{'-'.join(parts)}.json"), registry=definitions(version))


@cache
def definitions(version: str) -> Registry[Any]:
    shared = Resource.from_contents(schema(version, "_definitions.json"), default_specification=DRAFT7)
    registry: Registry[Any] = Registry().with_resource("_definitions.json", shared)
    return registry


@pytest.mark.parametrize(("case", "version"), [("everything", VERSIONS[0]), *((case, VERSIONS[1]) for case in CASES)])
def test_what_helm_renders_is_valid_for_kubernetes(case: str, version: str) -> None:
    problems = []
    for manifest in rendered(case):
        if manifest["kind"] != "ScaledObject":
            found = validator(version, manifest).iter_errors(manifest)
            problems += [f"{manifest['kind']} {list(error.path)}: {error.message:.200}" for error in found]
    assert problems == []


def test_the_schemas_refuse_a_field_that_does_not_exist() -> None:
    [manifest, *_] = of_kind("least", "Deployment").values()
    wrong = {**manifest, "spec": {**manifest["spec"], "replica": 2}}

    assert not validator(VERSIONS[0], wrong).is_valid(wrong)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "existingSecret"),
        ({**NEEDED, "replicas": 3}, "replicas"),
        ({**NEEDED, "jobs": {"replicas": 0}}, "minimum"),
        ({**NEEDED, "settings": {"LOWTIDE_REDIS_URL": "redis://:pw@host"}}, "LOWTIDE_REDIS_URL"),
        ({**NEEDED, "settings": {"LOWTIDE_SEGMENT_ROWS": 2000}}, "want string"),
        ({**NEEDED, "spool": {"url": "/tmp/spool"}}, "pattern"),
        ({**NEEDED, "keda": {"enabled": True}}, "serverAddress"),
        (
            {**NEEDED, "keda": {"enabled": True, "serverAddress": "http://p", "jobs": {"minReplicas": 0}}},
            "minReplicas",
        ),
        ({**NEEDED, "extraEnv": [{"name": "LOWTIDE_REDIS_URL", "value": "redis://:pw@host"}]}, "extraEnv/0/name"),
        ({**NEEDED, "keda": {"labels": {'x"} or up{a': "b"}}}, "invalid propertyName"),
    ],
    ids=[
        "nothing",
        "misspelt",
        "no worker",
        "secret",
        "number",
        "folder",
        "prometheus",
        "no clock",
        "secret in env",
        "no label",
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any], told: str) -> None:
    done = helm(values)

    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize("case", CASES)
def test_every_selector_finds_its_pods_and_every_name_leads_somewhere(case: str) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(case)}
    ports = {name: {port["name"] for port in pod["spec"]["containers"][0]["ports"]} for name, pod in pods(case)}

    for name, deployment in of_kind(case, "Deployment").items():
        assert selects(deployment["spec"]["selector"]["matchLabels"], labels) == [name]
    for name, budget in of_kind(case, "PodDisruptionBudget").items():
        chosen = [
            pod for pod, has in labels.items() if budget["spec"]["selector"]["matchLabels"].items() <= has.items()
        ]
        assert chosen == [name]
    for name, service in of_kind(case, "Service").items():
        assert selects(service["spec"]["selector"], labels) == [name]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[name]
    for scaled in of_kind(case, "ScaledObject").values():
        assert scaled["spec"]["scaleTargetRef"]["name"] in labels
    for policy in of_kind(case, "NetworkPolicy").values():
        assert selects(policy["spec"]["podSelector"]["matchLabels"], labels) == list(labels)
    for _, pod in pods(case):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        container = pod["spec"]["containers"][0]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["envFrom"][0]["configMapRef"]["name"] in of_kind(case, "ConfigMap")
        claims = {
            one["persistentVolumeClaim"]["claimName"]
            for one in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in one
        }
        assert claims <= {*of_kind(case, "PersistentVolumeClaim"), "shared"}


def test_both_queues_have_workers_with_probes() -> None:
    served = set()
    for _, pod in pods("least"):
        container = pod["spec"]["containers"][0]
        if container["name"] == "worker":
            served.add(container["args"][container["args"].index("-Q") + 1])
            probes = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]
            assert [probe["path"] for probe in probes] == ["/livez", "/livez", "/readyz"]
    assert served == {*Queue}


def test_the_hooks_application_has_probes_and_only_its_own_clients_reach_it() -> None:
    pod = dict(pods("everything"))["shop-hooks"]["spec"]["containers"][0]
    assert pod["livenessProbe"]["tcpSocket"] == {"port": "hooks"}
    assert pod["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "hooks"}
    assert f"--port={pod['ports'][0]['containerPort']}" in pod["args"]
    [policy] = of_kind("everything", "NetworkPolicy").values()
    rules = policy["spec"]["ingress"]
    assert [rule["from"] for rule in rules if {"port": "hooks"} in rule["ports"]] == [INGRESS]
    assert "shop-hooks" not in dict(pods("least"))


def test_the_pods_settings_exist_and_secrets_are_only_files() -> None:
    [config] = of_kind("everything", "ConfigMap").values()
    assert config["data"].keys() <= NAMES
    assert not any("SecretStr" in str(FIELDS[name]) for name in config["data"])
    for _, pod in pods("everything"):
        container = pod["spec"]["containers"][0]
        assert [one["name"] for one in container["env"]] == ["AWS_REGION", "AWS_SECRET_ACCESS_KEY"]
        assert container["envFrom"][1:] == [{"secretRef": {"name": "azure"}}]
        [secrets] = [mount for mount in container["volumeMounts"] if mount["name"] == "secrets"]
        assert secrets["mountPath"] == config["data"]["LOWTIDE_SECRETS_DIR"]
        # Kubernetes' own variables, such as LOWTIDE_METRICS_PORT, would look like settings.
        assert pod["spec"]["enableServiceLinks"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_no_variable_of_its_own_is_in_a_container_without_extra_ones() -> None:
    assert not any("env" in pod["spec"]["containers"][0] for _, pod in pods("least"))


def test_the_network_policy_lets_in_each_port_of_a_service_and_lets_names_be_resolved() -> None:
    [policy] = of_kind("everything", "NetworkPolicy").values()
    let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert let_in == {
        port["targetPort"] for one in of_kind("everything", "Service").values() for port in one["spec"]["ports"]
    }
    out = [port for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert {"port": 53, "protocol": "UDP"} in out
    assert {"port": 443} in out
    [policy] = of_kind("least", "NetworkPolicy").values()
    assert policy["spec"]["egress"] == [{}]


def test_the_workers_are_scaled_by_metrics_that_exist() -> None:
    known = {metric.name: metric for metric in CATALOGUE}
    for name, scaled in of_kind("everything", "ScaledObject").items():
        queue = f"lowtide.{name.rpartition('-')[2]}"
        for trigger in scaled["spec"]["triggers"]:
            used = re.findall(r'(lowtide_\w+)\{queue="([^"]+)",namespace="prod"\}', trigger["metadata"]["query"])
            assert used
            assert all(metric in known and "queue" in known[metric].labels and of == queue for metric, of in used)
    assert all(
        "replicas" not in one["spec"]
        for name, one in of_kind("everything", "Deployment").items()
        if name.endswith(("jobs", "results"))
    )
