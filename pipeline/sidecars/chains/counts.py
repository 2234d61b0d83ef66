"""What is counted while chains are made; the counts stand in each part and in the summary."""

from __future__ import annotations

from trackmill.pipeline.sidecars.chains.source_frames import CHANGED, GONE, UNREADABLE

FRAMES, KEPT, CHAINS = "frames", "kept", "chains"
LOW, OUTSIDE, DUPLICATE, BEYOND = "below the score", "outside the frame", "duplicates", "beyond max_boxes"
SHORT = "in chains that are too short"
PICTURES, CLIPS = "pictures", "clips"
NATIVE = "clips linked at the native rate"
AS_STORED = {
    "boxes": "clips linked from stored frame to stored frame: boxes of these alone",
    "none": "clips linked from stored frame to stored frame: no frame in between can be read",
    "never": "clips linked from stored frame to stored frame: as asked for",
    GONE: "clips linked from stored frame to stored frame: source gone",
    CHANGED: "clips linked from stored frame to stored frame: source changed",
    UNREADABLE: "clips linked from stored frame to stored frame: source cannot be read",
}
"""Counts of clips that have frames in between which were not looked at, by the reason."""
HOLES = "clips with frames in between that cannot be read"
BETWEEN = "frames in between"
CUTS_AS_STORED = "clips whose cuts were sought in stored frames alone"
NO_MASKS = "clips without masks, linked by boxes"
