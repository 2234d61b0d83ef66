"""Clips for training: frames of a stored clip with boxes and identities, all transformed alike.

    example = make_clip(sample, rng, ClipSettings(), ClipSources(chains="chains"))

Importing this package is cheap; OpenCV is imported when pixels are made.
"""

from trackmill.pipeline.loader.clips.clip import make_clip
from trackmill.pipeline.loader.clips.example import NEGATIVE, ClipExample
from trackmill.pipeline.loader.clips.settings import ClipSettings, ClipSources
from trackmill.pipeline.loader.clips.usable import usable_clips

__all__ = ["NEGATIVE", "ClipExample", "ClipSettings", "ClipSources", "make_clip", "usable_clips"]
