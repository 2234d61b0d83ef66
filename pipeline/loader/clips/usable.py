"""Which samples of a data set clips can be made of, as far as that is known before anything is read."""

from __future__ import annotations

import warnings

import numpy as np

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
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


def usable_queries(catalog: Catalog, sources: QuerySources, clips: QueryClipSettings) -> Catalog:
    """The data set as tracking by query learns from it: videos with identities in them, and pictures with people.

    Warns where no video's sample stores as many frames as the longest clips should have.

    Args:
        catalog: the whole data set; videos and pictures may lie side by side, as MOT17 and CrowdHuman do.
        sources: where identities come from.
        clips: `per_frame` says whether an epoch takes a video's sample as often as it has frames, which also gives
            videos their share beside pictures.

    Raises:
        ConfigError: nothing is left; says what to do.
    """
    videos, annotated = catalog.frames > 1, catalog.annotated
    if annotated is None:  # of a folder of tars nobody knows
        annotated = np.ones(len(catalog), np.bool_)
    usable = annotated & sources.masklets
    if sources.chains:
        usable |= videos
    if not usable.any():
        if videos.any():
            return usable_clips(catalog, sources.clip_sources())  # raises, with what there is
        raise ConfigError(
            f"{redact(catalog.url)}: nobody is annotated in any of {len(catalog):,} pictures: mine data sets that say "
            "where people are, such as CrowdHuman, or videos that also say who they are"
        )
    kept = catalog.only(usable)
    wanted, longest = max(count for _, count in clips.frames), int(kept.frames.max())
    if 1 < longest < wanted:
        warnings.warn(
            f"clips.frames asks for {wanted} frames, but no sample stores more than {longest} of a video, and longer "
            f"clips there are not: mine with read.frames_per_clip = {(wanted - 1) * clips.interval[1] + 1}, which also "
            "holds the longest interval",
            stacklevel=2,
        )
    return kept.repeated(np.maximum(1, kept.frames.astype(np.int64))) if clips.per_frame else kept
