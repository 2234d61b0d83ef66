"""The resolver of kustomizations refuses what kustomize would, and every patch of production changes something."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.kustomize import BadKustomization, build, matched, read
from tests.infra.manifests import KUBERNETES

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "registry/a:1"}], "volumes": [{"name": "v"}]},
}
FOLDERS = sorted(
    path.parent.relative_to(KUBERNETES).as_posix()
    for path in KUBERNETES.rglob("kustomization.yaml")
    if "kind: Kustomization" in path.read_text()
)
TARGET = {"kind": "Pod", "name": "p"}


def folder(path: Path, resource: dict[str, Any] = POD, **content: Any) -> Path:
    """A kustomization of one resource."""
    (path / "pod.yaml").write_text(yaml.safe_dump(resource))
    kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["pod.yaml"]}
    (path / "kustomization.yaml").write_text(yaml.safe_dump({**kind, **content}))
    return path


def patched(path: Path, patch: Any) -> dict[str, Any]:
    """The resource after one patch."""
    (made,) = build(folder(path, patches=[{"target": TARGET, "patch": yaml.safe_dump(patch)}]))
    return made


def test_json_patches(tmp_path: Path) -> None:
    made = patched(
        tmp_path,
        [
            {"op": "add", "path": "/metadata/labels", "value": {}},
            {"op": "add", "path": "/metadata/labels/a.b~1c", "value": "d"},
            {"op": "replace", "path": "/spec/containers/0/image", "value": "x"},
            {"op": "remove", "path": "/spec/volumes"},
        ],
    )
    assert made["metadata"]["labels"] == {"a.b/c": "d"}
    assert made["spec"] == {"containers": [{"name": "c", "image": "x"}]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/spec/hostname", "value": "x"},
        {"op": "remove", "path": "/spec/containers/1"},
        {"op": "add", "path": "/metadata/labels/a", "value": "b"},
        {"op": "move", "path": "/spec/volumes", "from": "/spec/containers"},
    ],
)
def test_a_patch_of_what_is_not_there_is_refused(tmp_path: Path, operation: dict[str, Any]) -> None:
    with pytest.raises(BadKustomization, match=operation["path"].split("/")[1]):
        patched(tmp_path, [operation])


def test_merges_go_by_name(tmp_path: Path) -> None:
    patch = {**POD, "metadata": {"name": "any"}, "spec": {"containers": [{"name": "c", "args": ["x"]}]}}
    made = patched(tmp_path, patch)
    assert made["metadata"]["name"] == "p"
    assert made["spec"]["containers"] == [{"name": "c", "image": "registry/a:1", "args": ["x"]}]
    with pytest.raises(BadKustomization, match="nothing is called d"):
        patched(tmp_path, {**patch, "spec": {"containers": [{"name": "d"}]}})


def test_foreign_kinds_are_not_merged(tmp_path: Path) -> None:
    job = {"apiVersion": "ray.io/v1", "kind": "Pod", "metadata": {"name": "p"}}
    with pytest.raises(BadKustomization, match="use a JSON patch"):
        build(folder(tmp_path, job, patches=[{"target": TARGET, "patch": yaml.safe_dump(job)}]))


def test_images_and_namespace(tmp_path: Path) -> None:
    images = [{"name": "registry/a", "newName": "other/a", "digest": "sha256:1"}]
    (made,) = build(folder(tmp_path, images=images, namespace="n"))
    assert made["spec"]["containers"][0]["image"] == "other/a@sha256:1" and made["metadata"]["namespace"] == "n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"patch": []}, "patch"),
        ({"resources": ["../pod.yaml"]}, "outside"),
        ({"resources": ["pod.yaml", "pod.yaml"]}, "twice"),
        ({"configMapGenerator": [{"name": "x", "files": ["pod.yaml"]}]}, "nobody mounts"),
    ],
)
def test_what_kustomize_refuses(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(BadKustomization, match=said):
        build(folder(tmp_path, **content))
    with pytest.raises(BadKustomization, match="generateName"):
        build(folder(tmp_path, {**POD, "metadata": {"generateName": "p-"}}))


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_makes_the_same(folder: str) -> None:
    """The real kustomize, where there is one. The hash of a generated ConfigMap is another, whoever computes it."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alike = [
        re.sub(r"(trackmill-start-train)-\w{10}\b", r"\1", json.dumps(sorted(made, key=by_name), sort_keys=True))
        for made in (yaml.safe_load_all(done.stdout), build(KUBERNETES / folder))
    ]
    assert alike[0] == alike[1]


def by_name(resource: dict[str, Any]) -> tuple[str, str]:
    """Where a resource stands among others; the namespace that kustomize writes beside a subject goes."""
    for subject in resource.get("subjects", []):
        subject.pop("namespace", None)
    return resource["kind"], resource["metadata"]["name"]


def test_every_patch_of_production_changes_something() -> None:
    production = KUBERNETES / "production"
    used = set().union(*(matched(production / name) for name in ("standing", "mine", "train", "mine-parts")))
    written = {
        (path.parent.resolve(), f"{patch['target']['kind']} {patch['target']['name']}")
        for path in [*production.rglob("kustomization.yaml"), *(KUBERNETES / "kueue").rglob("kustomization.yaml")]
        for patch in read(path.parent).get("patches", [])
    }
    assert written == used and len(written) >= 9
