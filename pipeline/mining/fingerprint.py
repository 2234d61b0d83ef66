"""The fingerprint: everything that changes what is written, and nothing that does not.

Two runs may share an output only if their fingerprints are equal. Pool sizes, logging and the place of the input are
left out on purpose: they may change from one attempt to the next.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import orjson

from trackmill.models.outside import is_outside
from trackmill.models.registry import proposer_class
from trackmill.pipeline.mining.settings import MineConfig, proposer_settings, source_settings
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sources import source_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.storage.credentials import redact, scrub_values
from trackmill.pipeline.storage.documents import DamagedDocument, publish_document, read_document
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.config import Settings, digest, setting_differences
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import SCHEMA_VERSION, json_schemas

# Libraries whose release may change a decoded or encoded pixel.
_PIXEL_LIBRARIES = ("av", "numpy", "pillow")

_YOUNGER = ("max_frames", "amodal")
"""Settings of reading that are younger than data sets that have to be gone on with: no part at their default."""


class SettingsChanged(InputError):
    """The output was begun with other settings; the text lists each difference."""


def fingerprint_parts(config: MineConfig, implementation: dict[str, str]) -> dict[str, Any]:
    """What the fingerprint is made of.

    Args:
        config: with the proposer's section resolved.
        implementation: what else decides the proposals, see `Proposer.implementation`.
    """
    settings = proposer_settings(config).model_dump(mode="json")
    # Where a checkpoint lies does not matter; its SHA-256, in `implementation`, does.
    settings.pop("weights", None)
    implementation = {name: value for name, value in implementation.items() if name != "weights"}
    proposer = proposer_class(config.proposer)
    read = config.read.model_dump(mode="json")
    for name in _YOUNGER:
        if read[name] == getattr(ReadSettings(), name):
            del read[name]
    # By their own names and not by where their code lies, which may move.
    parts = {
        "schema_version": SCHEMA_VERSION,
        "proposer": {
            "name": proposer.name,
            "version": proposer.version,
            "settings": settings,
            "implementation": implementation,
        },
        "read": read,
        "shards": config.shards.model_dump(mode="json"),
        "negatives": config.negatives.model_dump(mode="json"),
        "libraries": pixel_libraries(),
    }
    if is_outside(config.source):
        # The sources of ours have been part of a data set without being named here, and may be mixed in one.
        source = source_class(config.source)
        settings = source_settings(config).model_dump(mode="json")
        parts["source"] = {"name": source.name, "version": source.version, "settings": settings}
    elif given := source_settings(config).model_dump(mode="json", exclude_defaults=True):
        parts["source"] = {"settings": given}
    return parts


def pixel_libraries() -> dict[str, str]:
    """Versions, on this machine, of the libraries that decode, scale and encode frames."""
    return {name: version(name) for name in _PIXEL_LIBRARIES}


def fingerprint(parts: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits for `fingerprint_parts`."""
    return digest(parts)[:16]


def stored_config(layout: Layout) -> dict[str, Any] | None:
    """What an output was begun with: `parts` of the fingerprint, `inputs`; None where nothing was begun.

    Raises:
        SettingsChanged: `config.json` is there but cannot be read.
    """
    if not exists(layout.config):
        return None
    try:
        document = read_document(layout.config)
        if "parts" not in document and "task" in document:
            raise SettingsChanged(f"--output {redact(layout.root)} is a training run; give the data set its own folder")
        parts = dict(document["parts"])
        if "derived" in parts:
            by = str(dict(parts["derived"]).get("by"))
            raise SettingsChanged(
                f"{redact(layout.root)} was made by trackmill {by} out of other data sets, and is not mined into: mine "
                "into one of those, or into an --output of its own, and make this one again"
            )
        return {"parts": parts, "inputs": list(document["inputs"])}
    except SettingsChanged:
        raise
    except DamagedDocument as error:
        raise SettingsChanged(f"{error}; restore it or use another --output") from None
    except (KeyError, TypeError, ValueError):
        raise SettingsChanged(f"{redact(layout.config)} is not readable; restore it or use another --output") from None


def keep_choices(settings: Settings, stored: dict[str, Any] | None) -> Settings:
    """Settings that are left to us (`auto`) stay what they were when the output was begun.

    Otherwise installing a package between two runs would make the second refuse to continue the first.
    """
    before = (stored or {}).get("proposer", {}).get("settings", {})
    open_choices = {name for name, value in settings if value == "auto"}
    return settings.model_copy(update={name: before[name] for name in open_choices & before.keys()})


def check_same(layout: Layout, stored: dict[str, Any], parts: dict[str, Any]) -> None:
    """Compare with what the output was begun with.

    Raises:
        SettingsChanged: lists each difference.
    """
    changed = [f"  {line}" for line in setting_differences(stored, orjson.loads(orjson.dumps(parts)))]
    if changed:
        raise SettingsChanged(
            f"{redact(layout.root)} was begun with other settings, and its shards would not match:\n"
            + "\n".join(changed)
            + "\nUse the old settings, or another --output."
        )


def store_config(layout: Layout, config: MineConfig, parts: dict[str, Any], inputs: list[str]) -> None:
    """Write `config.json` and the JSON Schemas of the records, which stay with the data for ever."""
    document = {
        "fingerprint": fingerprint(parts),
        "parts": parts,
        "config": scrub_values(config.model_dump(mode="json")),
        "inputs": [redact(url) for url in inputs],
        "trackmill": version("trackmill"),
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    publish_bytes(layout.json_schemas, orjson.dumps(json_schemas(), option=options))
    publish_document(layout.config, document)
