"""The command that goes on with an output, as far as its own files tell it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from trackmill.schemas.config import flatten

_MOST_SETTINGS = 12
_NOT_TOLD = ("run.", "forecast.", "proposer", "source")
"""Settings that change no byte of the output, or have an option of their own."""


def mine_again(config: dict[str, Any], root: str) -> str:
    """`trackmill mine ...` of a data set's `config.json`; settings that cannot be told are left to whoever began it.

    Args:
        config: what `config.json` says.
        root: of the data set, fit to be shown.
    """
    settings = config.get("config", {})
    settings = settings if isinstance(settings, dict) else {}
    derived = dict(config.get("parts") or {}).get("derived")
    if derived:
        words = ["trackmill", str(derived.get("by")), *(str(url) for url in config.get("inputs", [])), "--output", root]
        return f"{' '.join(shlex.quote(word) for word in words)} (with the options that it was begun with)"
    words = ["trackmill", "mine"]
    inputs = [str(url) for url in config.get("inputs", [])]
    shown = inputs[:3]
    if shown:
        words += ["--input", *shown]
    words += ["--output", root]
    for name in ("source", "proposer"):
        if isinstance(settings.get(name), str):
            words += [f"--{name}", settings[name]]
    changed = _changed(settings)
    if len(changed) <= _MOST_SETTINGS:
        for key, value in changed.items():
            words += ["--set", f"{key}={value}"]
    line = " ".join(shlex.quote(word) for word in words)
    if len(inputs) > len(shown):
        line += f" (and {len(inputs) - len(shown)} more inputs, see config.json)"
    if len(changed) > _MOST_SETTINGS:
        line += " with the settings of its config.json"
    return line


def train_again(recipe: dict[str, Any], root: str) -> str:
    """`trackmill train ...` of a run's `config.json`.

    Args:
        recipe: what `config.json` says.
        root: of the run, fit to be shown.
    """
    data = recipe.get("data", {})
    url = str(data.get("url", "")) if isinstance(data, dict) else ""
    name = str(recipe.get("name", "")) or "RECIPE"
    words = ["trackmill", "train", "--recipe", name, "--data", url or "URL", "--output", root]
    return f"{' '.join(shlex.quote(word) for word in words)} (with the options that it was begun with)"


def _changed(settings: dict[str, Any]) -> dict[str, str]:
    """Settings of a data set that are not the defaults, by dotted key, as `--set` takes them."""
    from trackmill.pipeline.mining.settings import MineConfig
    from trackmill.pipeline.storage.credentials import redact

    defaults = flatten(MineConfig().model_dump(mode="json"))
    chosen = str(settings.get("proposer", ""))
    found = {}
    for key, value in flatten(settings).items():
        section = key.partition(".")[0]
        if key.startswith(_NOT_TOLD) or (section in MineConfig.model_fields and not _concerns(section, chosen)):
            continue
        if key in defaults and defaults[key] != value and value is not None:
            found[key] = redact(value) if isinstance(value, str) else json.dumps(value)
    return found


def _concerns(section: str, proposer: str) -> bool:
    """Whether a section's settings change what this proposer mines."""
    from trackmill.models.registry import PROPOSERS

    return section not in PROPOSERS or section == proposer
