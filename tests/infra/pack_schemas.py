"""Makes the packed KubeRay schemas of this folder out of the CustomResourceDefinitions in `../shared/data/kuberay`:
`python -m tests.infra.pack_schemas`. Strict, so that a misspelt field is found, and without descriptions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import yaml

from tests.shared_data import DATA

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = {"RayJob": "rayjobs", "RayCluster": "rayclusters", "RayCronJob": "raycronjobs"}
_UNUSED = ("description", "format", "x-kubernetes-validations", "x-kubernetes-list-map-keys", "x-kubernetes-list-type")


def strict(schema: Any) -> Any:
    """A schema that refuses fields it does not list, as the API server does, and says nothing to people."""
    if isinstance(schema, list):
        return [strict(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: strict(field) for name, field in value.items()}
        elif key not in _UNUSED:
            made[key] = strict(value)
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def kuberay_spec(kind: str) -> Any:
    """The strict schema of `spec` of a kind, from the definition as KubeRay has it."""
    path = DATA / "kuberay" / f"ray.io_{KINDS[kind]}.yaml.gz"
    definition = yaml.load(gzip.decompress(path.read_bytes()), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    return strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def main() -> None:
    """Write one file a kind."""
    for kind in KINDS:
        text = json.dumps(kuberay_spec(kind), separators=(",", ":"), sort_keys=True)
        with gzip.GzipFile(SCHEMAS / f"{kind}.json.gz", "wb", compresslevel=9, mtime=0) as handle:
            handle.write(text.encode())


if __name__ == "__main__":
    main()
