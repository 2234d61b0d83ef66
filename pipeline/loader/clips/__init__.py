"""Clips for training: frames of a stored clip with boxes and identities, all transformed alike.

    example = make_clip(sample, rng, ClipSettings(), ClipSources(chains="chains"))

Importing this package is cheap; OpenCV is imported when pixels are made.
"""

from trackmill.pipeline.loader.clips.check import check_clips
from trackmill.pipeline.loader.clips.clip import make_clip
from trackmill.pipeline.loader.clips.example import NEGATIVE, ClipExample, UnfitClip
from trackmill.pipeline.loader.clips.settings import ClipSettings, ClipSources

__all__ = ["NEGATIVE", "ClipExample", "ClipSettings", "ClipSources", "UnfitClip", "check_clips", "make_clip"]
