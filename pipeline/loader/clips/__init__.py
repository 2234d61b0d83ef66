"""Clips for training: frames of a stored clip with boxes and identities, all transformed alike.

    example = make_clip(sample, rng, ClipSettings(), ClipSources(chains="chains"))

Two kinds of trainers take clips. Those that compare given boxes from frame to frame (ScaleTrack) get squares with the
objects that show enough, and pseudo-negatives: `clip`, `example`, `frames`, `jitter`, `boxes`. Those that track by
query (IP-MOT) get whole frames with all people in them, and pictures as clips: `query_clip`, `query_example`,
`interval`, `shifts`, `framing`. Who is who (`identities`), colours and usable samples are common to both.

Importing this package is cheap; OpenCV is imported when pixels are made.
"""

from trackmill.pipeline.loader.clips.clip import make_clip
from trackmill.pipeline.loader.clips.example import NEGATIVE, ClipExample
from trackmill.pipeline.loader.clips.settings import ClipSettings, ClipSources
from trackmill.pipeline.loader.clips.usable import usable_clips

__all__ = ["NEGATIVE", "ClipExample", "ClipSettings", "ClipSources", "make_clip", "usable_clips"]
