"""An output and the settings it is to be mined with: resolved, and compared with those it was begun with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trackmill.models.registry import proposer_class
from trackmill.pipeline.mining.fingerprint import (
    SettingsChanged,
    check_same,
    fingerprint_parts,
    keep_choices,
    stored_config,
)
from trackmill.pipeline.mining.proposer import resolve_proposer
from trackmill.pipeline.mining.settings import MineConfig, proposer_section, proposer_settings
from trackmill.pipeline.mining.signatures import recall_signatures
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import anything_done
from trackmill.pipeline.storage.urls import canonical


@dataclass(frozen=True, slots=True)
class Opened:
    """An output and the resolved settings for it.

    Args:
        begun: it was begun before, with the same settings.
        stale: it was begun with other settings, but nothing was finished with them, so it may begin anew.
        inputs: what it was made from so far.
    """

    layout: Layout
    config: MineConfig
    parts: dict[str, Any]
    begun: bool
    stale: bool
    inputs: list[str]


def open_output(config: MineConfig, output: str) -> Opened:
    """Resolve settings for an output; nothing is written.

    Args:
        config: as the user gave it.
        output: root URL of the data set.

    Raises:
        SettingsChanged: something was finished there with other settings.
        ValueError: a bad URL, or settings that the proposer does not take.
    """
    layout = Layout(canonical(output))
    stored = stored_config(layout)
    if stored is not None:
        recall_signatures(layout)
    before = stored["parts"] if stored else {}
    settings = proposer_settings(config)
    if before.get("proposer", {}).get("name") == proposer_class(config.proposer).name:
        settings = keep_choices(settings, before)
    settings, implementation = resolve_proposer(config.proposer, settings)
    config = config.model_copy(update={proposer_section(config): settings})
    parts = fingerprint_parts(config, implementation)
    if stored is None:
        return Opened(layout, config, parts, begun=False, stale=False, inputs=[])
    try:
        check_same(layout, before, parts)
    except SettingsChanged:
        if anything_done(layout):
            raise
        return Opened(layout, config, parts, begun=False, stale=True, inputs=[])
    return Opened(layout, config, parts, begun=True, stale=False, inputs=stored["inputs"])
