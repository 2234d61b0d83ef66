"""Which samples of a data set clips can be made of, as far as that is known before anything is read."""

from __future__ import annotations

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.clips.settings import ClipSources
from trackmill.pipeline.loader.sidecar_rows import CHAINS
from trackmill.pipeline.sidecars.about import command
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.config import ConfigError


def usable_clips(catalog: Catalog, sources: ClipSources) -> Catalog:
    """The data set without single pictures and, where masklets alone identify objects, without clips that have none.

    Raises:
        ConfigError: nothing is left; says what makes chains, or which setting takes those that are there.
    """
    where = redact(catalog.url)
    clips = catalog.frames > 1
    if not clips.any():
        raise ConfigError(
            f"{where}: all {len(catalog):,} samples are single pictures, and clips are made of videos: mine some "
            "(trackmill mine), with frames_per_clip of 2 or more"
        )
    annotated = catalog.annotated
    if sources.chains or (sources.masklets and annotated is None):  # of a folder of tars nobody knows
        return catalog.only(clips)
    if sources.masklets and annotated is not None and (clips & annotated).any():
        return catalog.only(clips & annotated)
    nobody = "has no clips with masklets" if sources.masklets else "is to be used without masklets (objects.masklets)"
    for name, sidecar in catalog.sidecars.by_name.items():
        if {column.name for column in sidecar.about.columns} >= set(CHAINS):
            raise ConfigError(f'{where} {nobody}, but chains: set objects.chains = "{name}"')
    makes = command(catalog.url, "chains", "video-chains")
    raise ConfigError(
        f"{where} {nobody}, and no chains, so nobody is known from frame to frame: {makes} links boxes; then set "
        'objects.chains = "chains"'
    )
