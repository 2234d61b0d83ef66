"""The cluster files, and what a test wants to know of them: pods, containers, command lines."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"


def resource_files() -> list[Path]:
    """Files with resources; kustomizations are none."""
    return sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")


def resources(path: Path) -> list[dict[str, Any]]:
    """All of one file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def everything() -> list[tuple[str, dict[str, Any]]]:
    """Every resource of every file, with the file's name."""
    return [(path.relative_to(INFRA).as_posix(), each) for path in resource_files() for each in resources(path)]


def one(kind: str, name: str) -> dict[str, Any]:
    """The resource of that kind and name."""
    (found,) = [each for _, each in everything() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template below a resource: where it stands, and the template."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}) if isinstance(value.get("spec"), dict) else False:
            yield where, value
        for key, each in value.items():
            yield from pods(each, f"{where}/{key}")
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from pods(each, f"{where}/{position}")


def entrypoints(value: Any) -> Iterator[str]:
    """Every `entrypoint` below a resource, and the command lines of containers that run a job."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "entrypoint":
                yield each
            else:
                yield from entrypoints(each)
        words = [*value.get("command", []), *value.get("args", [])] if isinstance(value.get("command"), list) else []
        if any("jobs/" in str(word) for word in words):
            yield shlex.join(words)
    elif isinstance(value, list):
        for each in value:
            yield from entrypoints(each)


def spoken(line: str) -> list[str]:
    """The words of a command line, with what a shell would put for `$(date ...)`, which is all it has to do there."""
    for date in re.findall(r"\$\((date [^)]*)\)", line):
        said = subprocess.run(["sh", "-c", date], capture_output=True, text=True, check=True).stdout.strip()
        line = line.replace(f"$({date})", said)
    assert "$" not in line and "`" not in line, line
    return shlex.split(line)


@cache
def ray_schema(kind: str) -> Any:
    """Strict schema of the `spec` of RayJob, RayCluster or RayCronJob."""
    return json.loads(gzip.decompress((SCHEMAS / f"{kind}.json.gz").read_bytes()))


@cache
def kueue_schema(kind: str) -> Any:
    """Schema of a kind of Kueue, kept by hand."""
    return json.loads((SCHEMAS / "kueue.json").read_text())[kind]


@cache
def prometheus_schema(kind: str) -> Any:
    """Schema of a kind of the Prometheus operator, kept by hand."""
    return json.loads((SCHEMAS / "prometheus-operator.json").read_text())[kind]


def check(resource: dict[str, Any]) -> None:
    """Validate a resource against the schema of its kind.

    Raises:
        Exception: of the validator; names the field.
    """
    import jsonschema
    import kubernetes_validate

    group, kind = resource["apiVersion"].partition("/")[0], resource["kind"]
    if group == "ray.io":
        assert resource.keys() == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.Draft7Validator(ray_schema(kind)).validate(resource["spec"])
        for _, pod in pods(resource["spec"]):  # KubeRay's schema is older than Kubernetes': both must take it
            whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod}
            kubernetes_validate.validate(whole, "1.34", strict=True)
    elif group == "kueue.x-k8s.io":
        jsonschema.Draft7Validator(kueue_schema(kind)).validate(resource)
    elif group == "monitoring.coreos.com":
        jsonschema.Draft7Validator(prometheus_schema(kind)).validate(resource)
    else:
        kubernetes_validate.validate(resource, "1.34", strict=True)


def read(job: Any, words: list[str]) -> Any:
    """Options of a command line, by the job's own parser."""
    return job.read(words)
