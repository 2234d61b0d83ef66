"""What the Prometheus operator gets is what a plain Prometheus reads, and nobody gets it without asking."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.infra.kustomize import build
from tests.infra.manifests import INFRA, KUBERNETES, check, everything, one, pods, prometheus_schema
from tests.infra.prometheus_rule import ALERTS, RULE, rule

METRICS = KUBERNETES / "metrics"
SCRAPED = yaml.safe_load((INFRA / "prometheus" / "scrape.yaml").read_text())["scrape_configs"]
KINDS = {"PodMonitor", "PrometheusRule"}


def test_the_rules_are_the_very_same() -> None:
    assert one("PrometheusRule", "trackmill")["spec"] == yaml.safe_load(ALERTS.read_text())
    assert RULE.read_text() == rule(), "give `python -m tests.infra.prometheus_rule`"


def test_the_same_pods_are_scraped_and_the_same_names_made() -> None:
    spec = one("PodMonitor", "trackmill")["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    (ours,) = endpoint["metricRelabelings"]
    for job in SCRAPED:
        for rule_there in job.get("metric_relabel_configs", []):
            camel = {re.sub("_(.)", lambda match: match[1].upper(), name): value for name, value in rule_there.items()}
            assert camel == ours
        for found in job.get("kubernetes_sd_configs", []):
            ((name, value),) = spec["selector"]["matchLabels"].items()
            assert found["selectors"] == [{"role": "pod", "label": f"{name}={value}"}]


def test_who_has_metrics_has_the_port_that_is_scraped() -> None:
    """KubeRay adds the port `metrics`, 8080, to the containers of Ray; whoever declares one by this name is ours."""
    ports = {job["relabel_configs"][0]["replacement"].rpartition(":")[2] for job in SCRAPED if "relabel_configs" in job}
    assert ports == {"8080", "9464"}
    (endpoint,) = one("PodMonitor", "trackmill")["spec"]["podMetricsEndpoints"]
    declared = [
        (resource["kind"], port["containerPort"])
        for _, resource in everything()
        for _, pod in pods(resource)
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == endpoint["port"]
    ]
    assert declared == [("Job", 9464)]


def test_an_overlay_takes_it_as_a_component(tmp_path: Path) -> None:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "vision",
        "resources": [str(KUBERNETES / "base")],
        "components": [str(METRICS)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    made = [each for each in build(tmp_path) if each["kind"] in KINDS]
    assert {each["kind"] for each in made} == KINDS
    for each in made:
        check(each)
        assert each["metadata"]["namespace"] == "vision"


def test_it_is_off_unless_asked_for() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        if path.parent != METRICS and "kind: Kustomization" in path.read_text():
            assert not KINDS & {each["kind"] for each in build(path.parent)}, path


def test_kubectl_makes_the_same() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(["kubectl", "kustomize", METRICS], capture_output=True, text=True, check=True)
    there = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert json.dumps(there, sort_keys=True) == json.dumps(
        {each["kind"]: each for each in build(METRICS)}, sort_keys=True
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_misspelt_field_is_found(kind: str) -> None:
    jsonschema.Draft7Validator.check_schema(prometheus_schema(kind))
    resource = one(kind, "trackmill")
    inside = resource["spec"]["podMetricsEndpoints" if kind == "PodMonitor" else "groups"][0]
    inside["metricRelabeling"] = []
    with pytest.raises(jsonschema.ValidationError, match="metricRelabeling"):
        check(resource)
