"""What `kubectl kustomize` would make of a folder, for the part of kustomize that `infra/kubernetes` uses.

Resources, components, patches with a target (JSON patches, or merges of Kubernetes' own kinds), images, namespace and
generated ConfigMaps. It is stricter than kustomize: a field or operation that it does not know, or a patch of a
resource without the key that it changes, is an error. That no resource matches a patch is not: components are shared.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "resources", "components", "patches", "images", "namespace", "configMapGenerator"}
_CLUSTER_WIDE = {"PriorityClass", "ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass", "Namespace"}
_BY_NAME = {"containers", "initContainers", "volumes", "env"}
"""Lists that a merge matches by `name`."""


class BadKustomization(Exception):
    """kustomize, or our stricter rules, would refuse it."""


def build(folder: Path) -> list[dict[str, Any]]:
    """All resources that a folder with a kustomization.yaml stands for."""
    return _apply(folder, [])


def matched(folder: Path) -> set[tuple[Path, str]]:
    """Every patch below a folder that changed a resource of it: file and target."""
    used: set[tuple[Path, str]] = set()
    _apply(folder, [], used)
    return used


def read(folder: Path) -> dict[str, Any]:
    """The kustomization of a folder."""
    path = folder / "kustomization.yaml"
    if not path.is_file():
        raise BadKustomization(f"{folder} has no kustomization.yaml")
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    if unknown := content.keys() - KNOWN:
        raise BadKustomization(f"{path}: {sorted(unknown)} is not known here")
    return content


def _apply(
    folder: Path, resources: list[dict[str, Any]], used: set[tuple[Path, str]] | None = None
) -> list[dict[str, Any]]:
    content = read(folder)
    is_component = content["kind"] == "Component"
    if content["apiVersion"] != f"kustomize.config.k8s.io/{'v1alpha1' if is_component else 'v1beta1'}":
        raise BadKustomization(f"{folder}: apiVersion {content['apiVersion']}")
    for entry in content.get("resources", []):
        path = (folder / entry).resolve()
        if path.is_dir():
            resources += _apply(path, [], used)
        elif path.parent == folder.resolve():
            resources += [each for each in yaml.safe_load_all(path.read_text()) if each]
        else:
            raise BadKustomization(f"{folder}: {entry} lies outside of the folder")
    for each in resources:
        if "name" not in each["metadata"]:
            raise BadKustomization(f"{folder}: kustomize wants metadata.name, and knows no generateName")
    keys = [(each["kind"], each["metadata"]["name"]) for each in resources]
    if len(set(keys)) < len(keys):
        raise BadKustomization(f"{folder}: a resource is there twice")
    for entry in content.get("components", []):
        if read(folder / entry)["kind"] != "Component":
            raise BadKustomization(f"{folder}: {entry} is no component")
        resources = _apply((folder / entry).resolve(), resources, used)
    for generated in content.get("configMapGenerator", []):
        resources.append(_config_map(folder, generated, resources))
    for patch in content.get("patches", []):
        target = patch["target"]
        for position, resource in enumerate(resources):
            if resource["kind"] == target["kind"] and re.fullmatch(target["name"], resource["metadata"]["name"]):
                if used is not None:
                    used.add((folder.resolve(), f"{target['kind']} {target['name']}"))
                resources[position] = _patched(resource, yaml.safe_load(patch["patch"]))
    for resource in resources:
        for image in content.get("images", []):
            _set_image(resource, image)
        if "namespace" in content and resource["kind"] not in _CLUSTER_WIDE:
            resource["metadata"]["namespace"] = content["namespace"]
    return resources


def _patched(resource: dict[str, Any], patch: Any) -> dict[str, Any]:
    if isinstance(patch, list):
        for operation in patch:
            _operate(resource, operation)
        return resource
    group = resource["apiVersion"].rpartition("/")[0]
    if "." in group and not group.endswith("k8s.io"):
        raise BadKustomization(f"{resource['kind']}: lists of foreign kinds are not merged; use a JSON patch")
    body = {key: value for key, value in patch.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {key: value for key, value in patch["metadata"].items() if key != "name"}
    if (patch["apiVersion"], patch["kind"]) != (resource["apiVersion"], resource["kind"]):
        raise BadKustomization(f"the patch is of {patch['kind']}, not of {resource['kind']}")
    merged = _merged(resource, body, "")
    assert isinstance(merged, dict)
    return merged


def _merged(old: Any, new: Any, field: str) -> Any:
    if isinstance(new, dict):
        old = old if isinstance(old, dict) else {}
        return {**old, **{key: _merged(old.get(key), value, key) for key, value in new.items()}}
    if isinstance(new, list) and field in _BY_NAME:
        made = [copy.deepcopy(each) for each in old or []]
        for each in new:
            places = [place for place, there in enumerate(made) if there["name"] == each["name"]]
            if not places:
                raise BadKustomization(f"{field}: nothing is called {each['name']}")
            made[places[0]] = _merged(made[places[0]], each, "")
        return made
    return copy.deepcopy(new)


def _operate(resource: Any, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902): add, replace or remove."""
    path = [word.replace("~1", "/").replace("~0", "~") for word in operation["path"].split("/")[1:]]
    place = resource
    for word in path[:-1]:
        try:
            place = place[int(word)] if isinstance(place, list) else place[word]
        except (KeyError, IndexError, ValueError):
            raise BadKustomization(f"{operation['path']}: {resource['kind']} has no {word!r} there") from None
    last = path[-1]
    exists = int(last) < len(place) if isinstance(place, list) else last in place
    kind = operation["op"]
    if kind == "add" and isinstance(place, dict):
        place[last] = copy.deepcopy(operation["value"])
    elif kind == "replace" and exists:
        place[int(last) if isinstance(place, list) else last] = copy.deepcopy(operation["value"])
    elif kind == "remove" and exists:
        del place[int(last) if isinstance(place, list) else last]
    else:
        raise BadKustomization(f"{kind} {operation['path']}: cannot be done on {resource['kind']}")


def _set_image(value: Any, image: dict[str, Any]) -> None:
    """Everywhere below `containers`, as kustomize does it, foreign kinds included."""
    if isinstance(value, list):
        for each in value:
            _set_image(each, image)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in ("containers", "initContainers"):
                for container in each:
                    if re.split(r"[:@]", container["image"])[0] == image["name"]:
                        container["image"] = f"{image.get('newName', image['name'])}@{image['digest']}"
            _set_image(each, image)


def _config_map(folder: Path, generated: dict[str, Any], resources: list[dict[str, Any]]) -> dict[str, Any]:
    """The ConfigMap, with the hash of its content behind its name, which the pods that mount it learn as well."""
    data = {name: (folder / name).read_text() for name in generated["files"]}
    name = f"{generated['name']}-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:10]}"
    found = 0

    def rename(value: Any) -> None:
        nonlocal found
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "configMap" and isinstance(each, dict) and each.get("name") == generated["name"]:
                each["name"] = name
                found += 1
            elif isinstance(each, (dict, list)):
                rename(each)

    for resource in resources:
        rename(resource)
    if not found:
        raise BadKustomization(f"{folder}: nobody mounts the ConfigMap {generated['name']}")
    metadata = {"name": name, "labels": generated.get("options", {}).get("labels", {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
