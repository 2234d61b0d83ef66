"""The script that starts a week's training, against a `kubectl` of our own: what it creates, and when it does not."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infra.kustomize import build
from tests.infra.manifests import KUBERNETES, check, one, read, spoken
from trackmill.jobs import train

SCRIPT = KUBERNETES / "schedule" / "start-train.sh"
KUBECTL = '''
"""Answers from `cluster.json`: `get rayjobs`, `get raycronjob NAME`, and `create`, which adds to it."""
import json, os, re, sys
words = sys.argv[1:]
path = os.environ["CLUSTER"]
cluster = json.load(open(path))
if words[:2] == ["create", "--filename"] and words[2] == "-":
    made = json.load(sys.stdin)
    made["metadata"]["name"] = made["metadata"]["generateName"] + str(len(cluster["created"]))
    cluster["created"].append(made)
    json.dump(cluster, open(path, "w"))
    print("rayjob.ray.io/" + made["metadata"]["name"] + " created")
elif words[:2] == ["get", "rayjobs"] and words[2] == "--selector" and words[4] == "--output":
    for name, status in cluster["rayjobs"].items():
        print(name + "=" + status)
elif words[:2] == ["get", "raycronjob"] and words[3] == "--output":
    value = cluster["raycronjob"]
    assert value["metadata"]["name"] == words[2]
    for key in re.fullmatch(r"jsonpath=\\{\\.([\\w.]+)\\}", words[4])[1].split("."):
        value = value[key]
    print(json.dumps(value, separators=(",", ":")), end="")
else:
    sys.exit("unknown: " + repr(words))
'''


class Cluster:
    """What `kubectl` knows, and the script run against it."""

    def __init__(self, folder: Path, cronjob: dict[str, Any], **rayjobs: str) -> None:
        program = folder / "kubectl.py"
        program.write_text(KUBECTL)
        (folder / "kubectl").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {program} "$@"\n')
        (folder / "kubectl").chmod(0o755)
        self.folder, self.state = folder, folder / "cluster.json"
        jobs = {name.replace("_", "-"): status for name, status in rayjobs.items()}
        self.state.write_text(json.dumps({"raycronjob": cronjob, "rayjobs": jobs, "created": []}))

    def start(self) -> subprocess.CompletedProcess[str]:
        """Run the script, as its pod does."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "CLUSTER": str(self.state)}
        return subprocess.run(["sh", SCRIPT], capture_output=True, text=True, env=environment)

    @property
    def created(self) -> list[dict[str, Any]]:
        """RayJobs that it has made."""
        return list(json.loads(self.state.read_text())["created"])


def period() -> str:
    """This week."""
    return subprocess.run(["date", "-u", "+%G-w%V"], capture_output=True, text=True, check=True).stdout.strip()


def test_a_run_is_created_for_this_week(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, one("RayCronJob", "trackmill-train"), old="Complete", older="Failed")
    week = period()
    done = cluster.start()
    assert done.returncode == 0, done.stderr
    (made,) = cluster.created
    assert made["metadata"]["generateName"] == f"trackmill-train-{week}-"
    assert made["metadata"]["labels"]["trackmill/schedule"] == "trackmill-train"
    assert made["metadata"]["labels"]["app.kubernetes.io/component"] == "train"
    check(made)
    assert "$(" not in made["spec"]["entrypoint"], "a retry in a later week must write to the same output"
    options = read(train.JOB, spoken(made["spec"]["entrypoint"])[2:])
    assert options.output == f"s3://my-bucket/runs/masa-r50/{week}"
    # Another start in the same week writes to the same output: it goes on, or finds that nothing is left to do.
    assert cluster.start().returncode == 0
    assert cluster.created[1]["spec"] == made["spec"]


@pytest.mark.parametrize("status", ["Running", "Initializing", "Suspended", "Retrying", "Waiting", ""])
def test_nothing_is_started_while_a_run_is_at_work(tmp_path: Path, status: str) -> None:
    cluster = Cluster(tmp_path, one("RayCronJob", "trackmill-train"), this_week=status)
    done = cluster.start()
    assert done.returncode == 0 and not cluster.created
    assert f"RayJob this-week is still at work ({status}): nothing is started" in done.stdout


def test_the_queue_of_production_comes_along(tmp_path: Path) -> None:
    (cronjob,) = (each for each in build(KUBERNETES / "production" / "standing") if each["kind"] == "RayCronJob")
    cluster = Cluster(tmp_path, cronjob)
    done = cluster.start()
    assert done.returncode == 0, done.stderr
    (made,) = cluster.created
    check(made)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "trackmill"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "trackmill-train"
    assert made["spec"]["suspend"] is True, "Kueue lets it in"


def test_a_template_without_a_week_is_refused(tmp_path: Path) -> None:
    cronjob = one("RayCronJob", "trackmill-train")
    template = cronjob["spec"]["jobTemplate"]
    template["entrypoint"] = template["entrypoint"].replace("/$(date -u +%G-w%V)", "")
    done = Cluster(tmp_path, cronjob).start()
    assert done.returncode == 1 and "each week needs an output of its own" in done.stderr


def test_cron_and_template_have_one_schedule_and_one_of_them_sleeps() -> None:
    cron, template = one("CronJob", "trackmill-train")["spec"], one("RayCronJob", "trackmill-train")["spec"]
    assert (cron["schedule"], cron["timeZone"]) == (template["schedule"], template["timeZone"])
    assert cron["concurrencyPolicy"] == "Forbid"
    assert template["suspend"] is True and cron["suspend"] is False
    (container,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1].rpartition("/")[2] == SCRIPT.name
