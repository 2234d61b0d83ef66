"""Whether a data set has anything that clips can be made of, told before training starts."""

from __future__ import annotations

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.clips.settings import ClipSources
from trackmill.pipeline.loader.sidecar_rows import CHAINS
from trackmill.pipeline.sidecars.about import command
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.config import ConfigError


def check_clips(catalog: Catalog, sources: ClipSources) -> None:
    """Refuse a data set without clips, or without identities in them.

    Raises:
        ConfigError: says what makes chains, or which setting takes those that are there.
    """
    where = redact(catalog.url)
    if not (catalog.frames > 1).any():
        raise ConfigError(
            f"{where}: all {len(catalog):,} samples are single pictures, and clips are made of videos: mine some "
            "(trackmill mine), with frames_per_clip of 2 or more"
        )
    if sources.chains or (sources.masklets and catalog.annotated_clips != 0):
        return
    nobody = "has no masklets" if sources.masklets else "is to be used without its masklets (objects.masklets)"
    for name, sidecar in catalog.sidecars.by_name.items():
        if {column.name for column in sidecar.about.columns} >= set(CHAINS):
            raise ConfigError(f'{where} {nobody}, but chains: set objects.chains = "{name}"')
    raise ConfigError(
        f"{where} {nobody}, and no chains, so nobody in its clips is known from frame to frame: "
        f'{command(catalog.url, "chains")} links boxes; then set objects.chains = "chains"'
    )
