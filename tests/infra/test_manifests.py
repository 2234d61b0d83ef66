"""The cluster files parse, hold what their schemas ask for, and agree with each other, the jobs and the pins."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.kustomize import build
from tests.infra.manifests import (
    COMPONENT,
    INFRA,
    KUBERNETES,
    PART_OF,
    ROOT,
    check,
    entrypoints,
    everything,
    one,
    pods,
    ray_schema,
    read,
    resource_files,
    resources,
    spoken,
)
from tests.infra.pack_schemas import KINDS, kuberay_spec
from tests.make_dataset import make_dataset
from tests.shared_data import needs_data
from trackmill.jobs import mine_proposals, train
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.training.prepare import check_batch

PINNED = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
IMAGES = sorted((INFRA / "docker").glob("*.Dockerfile"))
JOBS = {"jobs/mine_proposals.py": mine_proposals.JOB, "jobs/train.py": train.JOB}
FILES = [path.relative_to(KUBERNETES).as_posix() for path in resource_files()]
BUILT = ["base", "schedule", "mine", "mine-parts", "train", "shared-cluster", "kueue"]
BUILT += [f"production/{name}" for name in ("standing", "mine", "train", "mine-parts")]


def clusters(value: Any) -> list[dict[str, Any]]:
    """Every description of a Ray cluster below a resource."""
    if not isinstance(value, dict):
        return []
    here = [value] if "headGroupSpec" in value else []
    return here + [found for each in value.values() for found in clusters(each)]


@pytest.mark.parametrize("file", FILES)
def test_every_resource_fits_its_schema(file: str) -> None:
    found = resources(KUBERNETES / file)
    assert found
    for resource in found:
        check(resource)


@pytest.mark.parametrize("folder", BUILT)
def test_what_kustomize_makes_fits_the_schemas(folder: str) -> None:
    for resource in build(KUBERNETES / folder):
        check(resource)
        for line in entrypoints(resource):
            read_by_the_job(line)


def test_a_misspelt_field_is_found() -> None:
    for kind, name, place in (
        ("RayJob", "trackmill-mine", ("spec", "rayClusterSpec", "authOption")),
        ("RayCronJob", "trackmill-train", ("spec", "jobTemplate", "rayClusterSpecs")),
        ("RayCluster", "trackmill-shared", ("spec", "gcsFaultTolerance")),
        ("ClusterQueue", "trackmill", ("spec", "preemptions")),
        ("Job", "trackmill-mine-parts", ("spec", "template", "spec", "toleration")),
    ):
        resource = one(kind, name)
        *path, last = place
        inside = resource
        for word in path:
            inside = inside[word]
        inside[last] = {}
        with pytest.raises(Exception, match=last):
            check(resource)


@needs_data("kuberay")
@pytest.mark.parametrize("kind", KINDS)
def test_the_packed_schemas_are_kuberays(kind: str) -> None:
    assert kuberay_spec(kind) == ray_schema(kind)


def read_by_the_job(line: str) -> tuple[str, Any]:
    """The options that a command line gives a job, by the job's own parser; fails where it takes them not."""
    words = spoken(line)
    assert words[0] == "python" and words[1] in JOBS, line
    return words[1], read(JOBS[words[1]], words[2:])


def test_every_command_line_is_one_that_its_job_takes() -> None:
    seen = set()
    for _, resource in everything():
        for line in entrypoints(resource):
            name, options = read_by_the_job(line)
            if name == "jobs/train.py":
                train.settings(options)
            else:
                mine_proposals.settings(options)
            seen.add((resource["kind"], name))
    assert seen == {
        ("RayJob", "jobs/mine_proposals.py"),
        ("RayJob", "jobs/train.py"),
        ("RayCronJob", "jobs/train.py"),
        ("Job", "jobs/mine_proposals.py"),
    }


def runs(kind: str, job: str) -> list[tuple[dict[str, Any], Any]]:
    """Each resource of a kind, as it stands and as production has it, that runs a job, with the job's options."""
    found = [each for _, each in everything()]
    found += [each for folder in BUILT if folder.startswith("production") for each in build(KUBERNETES / folder)]
    made = [
        (each, *read_by_the_job(line)) for each in found if each["kind"] in kind.split() for line in entrypoints(each)
    ]
    return [(each, options) for each, name, options in made if name == job]


def test_training_asks_for_what_there_is(tmp_path: Path) -> None:
    make_dataset(str(tmp_path), num_images=3)
    catalog = read_catalog(str(tmp_path))
    found = runs("RayJob RayCronJob", "jobs/train.py")
    assert len(found) == 4
    for resource, options in found:
        recipe = train.settings(options)
        assert train.choose_launcher(options, 1) == ("ray", options.workers)
        check_batch(recipe, catalog, options.workers)
        (cluster,) = clusters(resource)
        (group,) = cluster["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        assert group["replicas"] == group["maxReplicas"] == options.workers
        assert recipe.data.workers < recipe.ray.cpus_per_worker < float(container["resources"]["requests"]["cpu"])
        assert recipe.data.cache in [mount["mountPath"] for mount in container["volumeMounts"]]
    budget = one("PodDisruptionBudget", "trackmill-train")["spec"]
    assert budget["minAvailable"] == 1 + found[0][1].workers, "head and ranks"


def test_mining_asks_for_as_many_actors_as_machines() -> None:
    found = runs("RayJob", "jobs/mine_proposals.py")
    assert len(found) == 2
    for resource, options in found:
        ((group,),) = [cluster["workerGroupSpecs"] for cluster in clusters(resource)]
        assert str(group["replicas"]) == str(group["maxReplicas"]) == str(options.workers)


def test_parts_are_as_many_as_pods() -> None:
    found = runs("Job", "jobs/mine_proposals.py")
    assert [resource["spec"]["completions"] for resource, _ in found] == [8, 16]
    for resource, options in found:
        spec = resource["spec"]
        assert spec["completionMode"] == "Indexed"
        assert options.part == f"kubernetes/{spec['completions']}"
        assert spec["parallelism"] == spec["maxFailedIndexes"] == spec["completions"]


def test_the_shared_cluster_keeps_ranks_off_spot_machines() -> None:
    """They ask for more CPUs than such a node says it has."""
    groups = {group["groupName"]: group for group in one("RayCluster", "trackmill-shared")["spec"]["workerGroupSpecs"]}
    recipe = train.settings(runs("RayJob", "jobs/train.py")[0][1])
    said = {name: float(group["rayStartParams"]["num-cpus"]) for name, group in groups.items()}
    assert said["spot"] < recipe.ray.cpus_per_worker <= said["on-demand"]
    for group in groups.values():
        (container,) = group["template"]["spec"]["containers"]
        assert float(group["rayStartParams"]["num-cpus"]) <= float(container["resources"]["requests"]["cpu"])


def test_every_cluster_names_the_pinned_ray_and_one_image() -> None:
    assert PINNED
    found = [cluster for _, resource in everything() for cluster in clusters(resource)]
    assert len(found) == 4
    for cluster in found:
        assert cluster["rayVersion"] == PINNED[1]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        images = {container["image"] for _, pod in pods(cluster) for container in pod["spec"]["containers"]}
        assert len(images) == 1
        for group in cluster["workerGroupSpecs"]:
            assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_clusters_of_jobs_go_with_their_job() -> None:
    """Kueue insists on it, too."""
    found = [each for _, each in everything() if each["kind"] in ("RayJob", "RayCronJob")]
    for resource in found:
        spec = resource["spec"].get("jobTemplate", resource["spec"])
        assert spec["shutdownAfterJobFinishes"] is True and spec["submissionMode"] == "K8sJobMode"
        assert "runtimeEnvYAML" not in spec, "Ray shows and logs it"


def test_what_is_queued_has_no_autoscaler_and_waits_to_be_let_in() -> None:
    queue, classes = one("LocalQueue", "trackmill"), {"trackmill-mine": 100, "trackmill-train": 1000}
    for name, value in classes.items():
        assert one("WorkloadPriorityClass", name)["value"] == one("PriorityClass", name)["value"] == value
    flavors = one("ClusterQueue", queue["spec"]["clusterQueue"])["spec"]["resourceGroups"][0]["flavors"]
    labels = {flavor["name"]: one("ResourceFlavor", flavor["name"])["spec"]["nodeLabels"] for flavor in flavors}
    assert one("ClusterQueue", "trackmill")["spec"]["preemption"]["withinClusterQueue"] == "LowerPriority"
    seen = []
    for folder in ("mine", "train", "mine-parts", "standing"):
        for resource in build(KUBERNETES / "production" / folder):
            if resource["kind"] not in ("RayJob", "Job", "RayCronJob"):
                continue
            seen.append(resource["kind"])
            spec = resource["spec"].get("jobTemplate", resource["spec"])
            assert spec["suspend"] is True
            assert resource["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
            assert resource["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] in classes
            for cluster in clusters(spec):
                assert cluster["enableInTreeAutoscaling"] is False and "autoscalerOptions" not in cluster
                head = cluster["headGroupSpec"]["template"]["spec"]
                assert head["nodeSelector"] == labels["trackmill-on-demand"]
    assert seen == ["RayJob", "RayJob", "Job", "RayCronJob"]


def test_pods_of_one_kind_fit_into_one_flavor_of_the_queue() -> None:
    """Kueue gives all pods of a group one flavor: what fits into none waits for ever."""
    units = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

    def number(text: Any) -> float:
        found = re.fullmatch(r"([0-9.]+)(\w*)", str(text))
        assert found, text
        return float(found[1]) * units[found[2]]

    flavors = one("ClusterQueue", "trackmill")["spec"]["resourceGroups"][0]["flavors"]
    quotas = [{each["name"]: number(each["nominalQuota"]) for each in flavor["resources"]} for flavor in flavors]
    groups = []
    for folder in ("mine", "train", "mine-parts", "standing"):
        for resource in build(KUBERNETES / "production" / folder):
            if resource["kind"] == "Job":
                groups.append((resource["spec"]["parallelism"], resource["spec"]["template"]))
            for cluster in clusters(resource):
                groups += [(group["replicas"], group["template"]) for group in cluster["workerGroupSpecs"]]
    assert len(groups) == 4
    for count, pod in groups:
        (container,) = pod["spec"]["containers"]
        asked = {name: count * number(value) for name, value in container["resources"]["requests"].items()}
        assert any(all(asked[name] <= quota[name] for name in asked) for quota in quotas), asked


def test_names_that_files_share_are_the_same() -> None:
    """Secrets, accounts, classes, claims: what one file names another one makes, or infra/README.md says how."""
    readme = (INFRA / "README.md").read_text()
    made = {(each["kind"], each["metadata"]["name"]) for _, each in everything()}
    for file, resource in everything():
        for where, pod in pods(resource):
            spec = pod["spec"]
            if "serviceAccountName" in spec:
                assert ("ServiceAccount", spec["serviceAccountName"]) in made, (file, where)
            if "priorityClassName" in spec:
                assert ("PriorityClass", spec["priorityClassName"]) in made, (file, where)
        text = json.dumps(resource)
        for secret in re.findall(
            r'"(?:secretRef|secretKeyRef)": {[^}]*"name": "([^"]+)"|"secretName": "([^"]+)"', text
        ):
            name = secret[0] or secret[1]
            assert f"create secret generic {name}" in readme or "any-other" in name, f"{file}: {name}"
    redis = one("RayCluster", "trackmill-shared")["spec"]["gcsFaultToleranceOptions"]["redisAddress"]
    service = one("Service", "trackmill-redis")
    assert redis == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_only_a_token_lets_a_ray_cluster_be_used() -> None:
    for _, resource in everything():
        for cluster in clusters(resource):
            assert cluster["authOptions"] == {"mode": "token", "secretName": "trackmill-ray-token"}
            assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
            assert not cluster["headGroupSpec"]["enableIngress"]
            assert "dashboard-host" not in cluster["headGroupSpec"]["rayStartParams"]


def all_pods() -> list[tuple[str, dict[str, Any]]]:
    """Pods of every file, and what production makes of them."""
    found = [(f"{file}{where}", pod) for file, resource in everything() for where, pod in pods(resource)]
    for folder in BUILT:
        found += [
            (f"{folder}: {resource['kind']}{where}", pod)
            for resource in build(KUBERNETES / folder)
            for where, pod in pods(resource)
        ]
    return found


def test_every_pod_is_guarded() -> None:
    """No root, no rights that nobody needs, no account where none is used, no disk without end."""
    found = all_pods()
    assert len(found) > 25
    for where, pod in found:
        spec, labels = pod["spec"], pod["metadata"]["labels"]
        assert labels[PART_OF] == "trackmill" and labels[COMPONENT], where
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        if spec.get("serviceAccountName") not in ("trackmill-head", "trackmill-schedule"):
            assert spec["automountServiceAccountToken"] is False, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), where
        (container,) = spec["containers"]
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}, where
        assert rights["readOnlyRootFilesystem"] is ("trackmill-train" not in container["image"]), where
        assert "memory" in container["resources"]["requests"] and "memory" in container["resources"]["limits"], where
        for volume in spec.get("volumes", []):
            assert "hostPath" not in volume, where
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), where
        names = {volume["name"] for volume in spec.get("volumes", [])}
        if labels[COMPONENT] != "redis":
            assert {mount["name"] for mount in container["volumeMounts"]} == names >= {"tmp"}, where


def test_pods_have_the_time_that_draining_takes() -> None:
    """preStop waits longer than `run.grace_s`, and the pod lives longer than preStop waits."""
    grace_s = MineConfig().run.grace_s
    seen = 0
    for where, pod in all_pods():
        hook = pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop")
        if hook is None:
            continue
        *module, within = hook["exec"]["command"]
        assert module == ["python", "-m", "trackmill.pipeline.drain", "--within"], where
        assert grace_s < float(within) < pod["spec"]["terminationGracePeriodSeconds"], where
        seen += 1
    assert seen >= 16
    for resource, _ in runs("Job", "jobs/mine_proposals.py"):
        assert resource["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace_s


def test_policies_let_in_whom_they_should() -> None:
    ours = {PART_OF: "trackmill"}
    policies = [each for _, each in everything() if each["kind"] == "NetworkPolicy"]
    for policy in policies:
        assert policy["spec"]["podSelector"]["matchLabels"].items() >= ours.items()
    nobody = one("NetworkPolicy", "trackmill-nobody")["spec"]
    assert nobody == {"podSelector": {"matchLabels": ours}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"] and all(peer.keys() <= {"podSelector", "namespaceSelector"} for peer in rule["from"])
    among, operator = one("NetworkPolicy", "trackmill-ray")["spec"]["ingress"]
    assert among["from"][0]["podSelector"]["matchLabels"] == ours and "ports" not in among
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}] and len(operator["from"]) == 1
    (scraped,) = one("NetworkPolicy", "trackmill-metrics")["spec"]["ingress"]
    assert [each["port"] for each in scraped["ports"]] == [8080, 44217, 44227, 9464]
    (to_redis,) = one("NetworkPolicy", "trackmill-redis")["spec"]["ingress"]
    assert to_redis["ports"] == [{"port": 6379, "protocol": "TCP"}]
    _, abroad = one("NetworkPolicy", "trackmill-outside")["spec"]["egress"]
    assert abroad["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"], "a node's own rights stay the node's"


def test_metrics_are_where_the_policy_lets_them_be_read() -> None:
    for _, resource in everything():
        for cluster in clusters(resource):
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                assert group["rayStartParams"]["metrics-export-port"] == "8080"


def test_parts_serve_their_metrics_on_the_port_that_is_let_in_and_scraped() -> None:
    for resource, options in runs("Job", "jobs/mine_proposals.py"):
        run = mine_proposals.settings(options).run
        assert (run.metrics_port, run.metrics_address) == (9464, "0.0.0.0"), resource["metadata"]
        (container,) = resource["spec"]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "metrics", "containerPort": 9464}]
    assert "$1:9464" in (INFRA / "prometheus" / "scrape.yaml").read_text()


def test_command_lines_use_the_names_that_help_shows() -> None:
    """Older names are read for the sake of old scripts; a reader looks for them in --help in vain."""
    for path in (*INFRA.rglob("*.yaml"), *INFRA.rglob("*.sbatch"), *(ROOT / "docs").glob("*.md"), INFRA / "README.md"):
        assert not re.search(r"--(actors|sam-variant)\b", path.read_text()), path


def test_the_account_of_the_schedule_may_little() -> None:
    role = one("Role", "trackmill-schedule")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"create", "list", "get"}
    assert {each for rule in role["rules"] for each in rule["resources"]} == {"rayjobs", "raycronjobs"}
    binding = one("RoleBinding", "trackmill-schedule")
    assert binding["roleRef"]["name"] == "trackmill-schedule"
    assert [each["name"] for each in binding["subjects"]] == ["trackmill-schedule"]


def test_production_has_images_by_digest_and_no_base_bucket() -> None:
    images = 0
    for folder in ("standing", "mine", "train", "mine-parts"):
        built = build(KUBERNETES / "production" / folder)
        for resource in built:
            for _, pod in pods(resource):
                for container in pod["spec"]["containers"]:
                    assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"]), container["image"]
                    images += 1
            assert not [line for line in entrypoints(resource) if "my-bucket" in line]
            if resource["kind"] == "ServiceAccount" and resource["metadata"]["name"] != "trackmill-schedule":
                assert "eks.amazonaws.com/role-arn" in resource["metadata"]["annotations"]
            if resource["kind"] not in ("PriorityClass",):
                assert resource["metadata"]["namespace"] == "trackmill", resource["kind"]
    assert images == 3 + 3 + 1 + 3 + 1


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_an_image(path: Path) -> None:
    """The pinned Ray, extras that exist, tokens, no root, and what it copies is there."""
    assert PINNED
    lines = path.read_text().splitlines()
    text = "\n".join(lines)
    if path.stem != "cpu":
        assert f"rayproject/ray:{PINNED[1]}-" in text
    for copied in re.findall(r"^COPY .* (\S+) \S+$", text, re.MULTILINE):
        assert copied == "LICENSE" or (ROOT / copied).exists()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r'--editable "\.\[(\S+)\]"', text)
    assert asked and set(asked[1].split(",")) <= set(extras)
    assert "RAY_AUTH_MODE=token" in text and "disabled" not in text and "RAY_USAGE_STATS_ENABLED=0" in text
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000:100"
    assert re.search(r'^ARG (\w+_DIGEST)=""\nFROM \S+\$\{\1\}$', text, re.MULTILINE)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_caches_of_an_image_lie_where_pods_can_write(path: Path) -> None:
    """Root file systems of pods cannot be written; Numba, which compiles SAM's masks, then refuses to be imported."""
    (block,) = re.findall(r"^ENV (RAY_AUTH_MODE=.*(?:\n    .*)*)$", path.read_text(), re.MULTILINE)
    given = dict(word.split("=") for word in block.replace("\\", "").split())
    for name in ("TRACKMILL_CACHE", "NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        assert given[name].startswith("/tmp/"), name
    for where, pod in all_pods():
        (container,) = pod["spec"]["containers"]
        if f"trackmill-{path.stem}:" in container["image"] or f"trackmill-{path.stem}@" in container["image"]:
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], where


def test_there_are_three_images() -> None:
    assert [path.stem for path in IMAGES] == ["cpu", "mine", "train"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = ROOT / ".venv" / "bin" / "hadolint"
    if not hadolint.exists():
        pytest.skip('needs pip install -e ".[dev]"')
    done = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_no_download_addresses_are_recorded() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile"):
        assert "://" not in (ROOT / name).read_text(), name
    assert not list(ROOT.glob("*.lock"))


def test_every_folder_of_manifests_is_built_by_a_test() -> None:
    kinds = {
        path.parent.relative_to(KUBERNETES).as_posix(): yaml.safe_load(path.read_text())["kind"]
        for path in KUBERNETES.rglob("kustomization.yaml")
    }
    assert {folder for folder, kind in kinds.items() if kind == "Kustomization"} == set(BUILT)
