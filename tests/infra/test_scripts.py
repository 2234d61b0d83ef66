"""Shell scripts, on their own and inside YAML, pass shellcheck; files for clouds say what their tools know."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.fake_slurm import SBATCH, options
from tests.infra.manifests import INFRA, ROOT, everything, pods, read
from trackmill.jobs import mine_proposals, train

SCRIPTS = sorted([*INFRA.rglob("*.sh"), *INFRA.rglob("*.sbatch")])
SKY = sorted((INFRA / "skypilot").glob("*.yaml"))
SKY_KEYS = {"name", "num_nodes", "resources", "envs", "secrets", "setup", "run", "pool", "workdir"}
SKY_RESOURCES = {"accelerators", "cpus", "memory", "disk_size", "use_spot", "image_id", "job_recovery", "ports"}


def inside_yaml() -> dict[str, str]:
    """Scripts inside YAML: what SkyPilot runs, and what containers give to `sh -c`."""
    found = {path.name: content["run"] for path in SKY if "run" in (content := yaml.safe_load(path.read_text()))}
    for file, resource in everything():
        for where, pod in pods(resource):
            for container in pod["spec"]["containers"]:
                if container.get("command", [""])[-1] == "-c":
                    found[f"{file}{where}"] = container["args"][0]
    return found


def shellcheck(*arguments: str, script: str | None = None) -> None:
    """Fail on any finding."""
    program = ROOT / ".venv" / "bin" / "shellcheck"
    if not program.exists():
        pytest.skip('needs pip install -e ".[dev]"')
    done = subprocess.run([program, *arguments], input=script, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    assert len(SCRIPTS) == 5
    shellcheck("--external-sources", *map(str, SCRIPTS))


def test_scripts_inside_yaml_pass_too() -> None:
    scripts = inside_yaml()
    assert len(scripts) == 3
    for script in scripts.values():
        shellcheck("--shell=sh", "-", script=script)


def test_a_finding_is_found() -> None:
    with pytest.raises(AssertionError, match="SC2086"):
        shellcheck("--shell=sh", "-", script="cd $HOME/x || exit\n")


@pytest.mark.parametrize("path", sorted((INFRA / "slurm").glob("*.sbatch")), ids=lambda path: path.stem)
def test_options_of_sbatch_are_known_and_preemption_drains(path: Path) -> None:
    lines = re.findall(r"^#SBATCH (.*)$", path.read_text(), re.MULTILINE)
    asked: dict[str, str] = {}
    for line in lines:
        found, rest = options([line], SBATCH)
        assert not rest
        asked |= found
    seconds = re.fullmatch(r"B:TERM@(\d+)", asked["signal"])
    assert seconds is not None and int(seconds[1]) >= 60, "run.grace_s is 25"
    assert "requeue" in asked and asked["open-mode"] == "append", "a log that goes on after a requeue"
    script = path.read_text()
    assert re.search(r"^export SRUN_CPUS_PER_TASK=", script, re.MULTILINE), "else srun gives a task one CPU"


def array_of(path: Path, name: str) -> list[str]:
    """The words of an array of bash, with what the script reads from Slurm put in."""
    (body,) = re.findall(rf"^{name}=\((.*?)\)$", path.read_text(), re.MULTILINE | re.DOTALL)
    values = {"SLURM_NNODES": "2", "ranks": "4", "port": "29500", "SLURM_JOB_ID": "7", "bin": "/b"}
    body = body.replace("${nodes[0]}", "node1")
    return [re.sub(r"\$(\w+)", lambda found: values[found[1]], word) for word in shlex.split(body)]


def test_slurms_command_lines_are_ones_that_the_jobs_take() -> None:
    words = array_of(INFRA / "slurm" / "mine-array.sbatch", "command")
    assert words[:2] == ["/b/python", "jobs/mine_proposals.py"]
    read(mine_proposals.JOB, words[2:])
    words = array_of(INFRA / "slurm" / "train-torchrun.sbatch", "command")
    assert words[0] == "/b/torchrun" and "jobs/train.py" in words
    read(train.JOB, words[words.index("jobs/train.py") + 1 :])
    head = (INFRA / "slurm" / "ray.sbatch").read_text().replace(" \\\n#", "")
    shown = re.findall(r"^#   sbatch \S+ \S+ (jobs/\S+) (.*)$", head, re.MULTILINE)
    assert [name for name, _ in shown] == ["jobs/train.py", "jobs/mine_proposals.py"]
    assert read(train.JOB, shlex.split(shown[0][1])).workers == 16
    read(mine_proposals.JOB, shlex.split(shown[1][1].removesuffix(" ...")))


@pytest.mark.parametrize("path", SKY, ids=lambda path: path.stem)
def test_a_file_for_skypilot(path: Path) -> None:
    """SkyPilot is not installed here: its keys are kept by hand."""
    content = yaml.safe_load(path.read_text())
    assert content.keys() <= SKY_KEYS and content["resources"].keys() <= SKY_RESOURCES
    assert content["resources"]["use_spot"] is True
    script = content.get("run", "")
    known = {"SKYPILOT_JOB_RANK": "2", "SKYPILOT_NUM_JOBS": "16", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    known |= {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "4"}
    assert set(re.findall(r"SKYPILOT_\w+", script)) <= known.keys()
    if not script:
        return
    said = spoken_by(script, {**known, **content["envs"]})
    at = next(place for place, word in enumerate(said) if word.startswith("jobs/"))
    job = {"jobs/train.py": train.JOB, "jobs/mine_proposals.py": mine_proposals.JOB}[said[at]]
    found = read(job, said[at + 1 :])
    if job is mine_proposals.JOB:
        assert found.part == "3/16"
    else:
        assert "--master-addr=10.0.0.1" in said and "--node-rank=1" in said


def spoken_by(script: str, variables: dict[str, str]) -> list[str]:
    """The words that a script hands to python or torchrun."""
    script = script.replace("cd /home/ray/trackmill\n", "")
    for program in ("python", "torchrun"):
        script = re.sub(rf"^{program} ", "printf '%s\\\\0' ", script, flags=re.MULTILINE)
    done = subprocess.run(["sh", "-c", script], env={**os.environ, **variables}, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_pool_and_jobs_ask_for_the_same_machine() -> None:
    pool, job = (yaml.safe_load((INFRA / "skypilot" / f"mine-{name}.yaml").read_text()) for name in ("pool", "job"))
    assert pool["resources"].items() <= job["resources"].items()


def test_the_cluster_of_ray_up_fits_rays_schema_and_is_closed() -> None:
    pytest.importorskip("jsonschema")
    from ray.autoscaler._private.util import prepare_config, validate_config

    content = yaml.safe_load((INFRA / "cloud" / "ray-up-aws.yaml").read_text())
    whole = prepare_config(json.loads(json.dumps(content)))
    validate_config(whole)
    with pytest.raises(Exception, match="dockr"):
        validate_config({**whole, "dockr": {}})
    assert "security_group" not in content["provider"], "Ray would make one that lets ssh in from everywhere"
    assert content["provider"]["use_internal_ips"] is True
    types = content["available_node_types"]
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert content["max_workers"] == types["gpu-spot"]["max_workers"]
    profiles = set()
    for node in types.values():
        config = node["node_config"]
        assert config["SecurityGroupIds"] and config["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
        profiles.add(config["IamInstanceProfile"]["Arn"])
    assert len(profiles) == 2, "workers may not start machines"
    starts = [line for name in ("head", "worker") for line in content[f"{name}_start_ray_commands"] if "start" in line]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
