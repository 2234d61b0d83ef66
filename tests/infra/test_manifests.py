"""The cluster files parse, hold what KubeRay needs, and name the Ray that is pinned."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from jobs.mine_proposals import parse_arguments

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


def test_the_image_has_the_pinned_ray() -> None:
    assert PINNED
    text = (ROOT / "infra" / "docker" / "mine.Dockerfile").read_text()
    assert f"rayproject/ray:{PINNED[1]}-" in text
    for name in re.findall(r"^COPY .* (\S+) \S+$", text, re.MULTILINE):
        assert name == "LICENSE" or (ROOT / name).exists()


def test_the_entrypoint_is_a_command_line_that_the_job_takes() -> None:
    document = yaml.safe_load((ROOT / "infra" / "kuberay" / "rayjob-mine.yaml").read_text())
    words = shlex.split(document["spec"]["entrypoint"])
    assert words[:2] == ["python", "jobs/mine_proposals.py"]
    options = parse_arguments(words[2:])
    assert (options.proposer, options.sam_variant, options.max_quarantined) == ("sam", "vit_h", "1%")


def test_no_download_addresses_are_recorded() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text(), name
    assert not list(ROOT.glob("*.lock"))
