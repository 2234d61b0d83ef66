"""The cluster files parse, hold what KubeRay needs, and name the Ray that is pinned."""

from __future__ import annotations

import gzip
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.make_dataset import make_dataset
from tests.shared_data import DATA, needs_data
from trackmill.jobs import mine_proposals, train
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.training.launch import check_batch

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_every_manifest_parses_and_names_the_pinned_ray() -> None:
    assert PINNED
    manifests = sorted((ROOT / "infra").rglob("rayjob-*.yaml"))
    assert manifests
    for path in manifests:
        document = yaml.safe_load(path.read_text())
        assert document["apiVersion"] == "ray.io/v1", path
        cluster = document["spec"]["rayClusterSpec"]
        assert cluster["rayVersion"] == PINNED[1], path
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            container = group["template"]["spec"]["containers"][0]
            assert container["image"] == cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
            assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert document["spec"]["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("name", ["mine", "train"])
def test_the_image_has_the_pinned_ray(name: str) -> None:
    assert PINNED
    text = (ROOT / "infra" / "docker" / f"{name}.Dockerfile").read_text()
    assert f"rayproject/ray:{PINNED[1]}-" in text
    for copied in re.findall(r"^COPY .* (\S+) \S+$", text, re.MULTILINE):
        assert copied == "LICENSE" or (ROOT / copied).exists()


def test_the_entrypoint_is_a_command_line_that_the_job_takes() -> None:
    document = yaml.safe_load((ROOT / "infra" / "kuberay" / "rayjob-mine.yaml").read_text())
    words = shlex.split(document["spec"]["entrypoint"])
    assert words[:2] == ["python", "jobs/mine_proposals.py"]
    options = mine_proposals.JOB.read(words[2:])
    assert (options.proposer, options.model, options.max_quarantined) == ("sam", "vit_h", "1%")


def test_the_training_entrypoint_is_one_that_the_job_takes_and_asks_for_what_there_is(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "infra" / "kuberay" / "rayjob-train.yaml").read_text())
    words = shlex.split(document["spec"]["entrypoint"])
    assert words[:2] == ["python", "jobs/train.py"]
    options = train.JOB.read(words[2:])
    recipe = train.settings(options)
    assert train.choose_launcher(options, 1) == ("ray", options.workers)
    make_dataset(str(tmp_path), num_images=3)
    check_batch(recipe, read_catalog(str(tmp_path)), options.workers)
    (group,) = document["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["replicas"] == options.workers
    assert recipe.data.workers < recipe.ray.cpus_per_worker < float(container["resources"]["requests"]["cpu"])
    assert recipe.data.cache in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_extras_of_the_images_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in (ROOT / "infra" / "docker").iterdir():
        asked = re.search(r'--editable "\.\[(\S+)\]"', path.read_text())
        assert asked, path
        assert set(asked[1].split(",")) <= set(extras), path


def test_no_download_addresses_are_recorded() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text(), name
    assert not list(ROOT.glob("*.lock"))


JOBS = ("rayjob-mine.yaml", "rayjob-train.yaml")
LABEL = {"app.kubernetes.io/part-of": "trackmill"}


def manifest(name: str) -> Any:
    return yaml.safe_load((ROOT / "infra" / "kuberay" / name).read_text())


def pods(name: str) -> Iterator[tuple[str, Any]]:
    """Each pod that a RayJob brings up, with what it is."""
    spec = manifest(name)["spec"]
    yield "head", spec["rayClusterSpec"]["headGroupSpec"]["template"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        yield "worker", group["template"]
    yield "submitter", spec["submitterPodTemplate"]


def _strict(schema: Any) -> None:
    """No field beside those that are listed, as KubeRay's own validation has it."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            _strict(value)
    elif isinstance(schema, list):
        for value in schema:
            _strict(value)


@needs_data("kuberay")
@pytest.mark.parametrize("name", JOBS)
def test_kuberay_knows_every_field(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.safe_load(gzip.decompress((DATA / "kuberay" / "ray.io_rayjobs.yaml.gz").read_bytes()))
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    _strict(schema)
    jsonschema.Draft7Validator(schema).validate(manifest(name)["spec"])
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.Draft7Validator(schema).validate({"rayClusterSpec": {"authOption": {}}})


@pytest.mark.parametrize("name", JOBS)
def test_a_cluster_is_guarded(name: str) -> None:
    """A token, no address outside, no root, no rights that nobody needs, no usage statistics."""
    cluster = manifest(name)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "trackmill-ray-token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP" and not cluster["headGroupSpec"]["enableIngress"]
    assert "dashboard-host" not in cluster["headGroupSpec"]["rayStartParams"]
    seen = []
    for what, pod in pods(name):
        seen.append(what)
        spec = pod["spec"]
        assert pod["metadata"]["labels"] == LABEL
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] >= 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert what == "head" or spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is (name == "rayjob-mine.yaml")
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]} >= {"tmp", "home"}
    assert seen == ["head", "worker", "submitter"]


def test_the_network_policy_lets_in_the_pods_of_a_run_and_the_operator() -> None:
    policy = manifest("network-policy.yaml")
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {"matchLabels": LABEL} and policy["spec"]["policyTypes"] == ["Ingress"]
    ours, operator = policy["spec"]["ingress"]
    assert ours == {"from": [{"podSelector": {"matchLabels": LABEL}}]}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}] and len(operator["from"]) == 1


@pytest.mark.parametrize("name", ["mine", "train"])
def test_an_image_wants_tokens_and_is_not_root(name: str) -> None:
    lines = (ROOT / "infra" / "docker" / f"{name}.Dockerfile").read_text().splitlines()
    text = "\n".join(lines)
    assert "RAY_AUTH_MODE=token" in text and "disabled" not in text and "RAY_USAGE_STATS_ENABLED=0" in text
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000:100"
    assert 'ARG RAY_DIGEST=""' in lines and any(re.match(r"FROM \S+\$\{RAY_DIGEST\}$", line) for line in lines)
