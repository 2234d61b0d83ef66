"""The cluster files parse, hold what KubeRay needs, and name the Ray that is pinned."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.make_dataset import make_dataset
from trackmill.jobs import mine_proposals, train
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.training.launch import check_batch

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_every_manifest_parses_and_names_the_pinned_ray() -> None:
    assert PINNED
    manifests = sorted((ROOT / "infra").rglob("*.yaml"))
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
