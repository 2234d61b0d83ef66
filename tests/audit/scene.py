"""A clip of four frames with one annotated object and eight negatives, small enough to check by hand."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.audit.rows import FrameNegatives
from trackmill.schemas.sample import FrameRecord, Objects, Origin, Proposals, SampleRecord, Stored

SHA = "0" * 64
OBJECT = [0.0, 0.0, 10.0, 10.0]


def frame_record(objects: list[list[float]] | None, proposals: list[list[float]] | None = None) -> FrameRecord:
    """A frame with annotated objects (None: nothing is known of it), ids from 1, and proposals."""
    boxes = proposals or []
    own = Objects(boxes=objects, ids=[*range(1, len(objects) + 1)], scores=[1.0] * len(objects)) if objects else None
    if objects == []:
        own = Objects(boxes=[], ids=[], scores=[])
    return FrameRecord(
        member="m.jpg",
        index=0,
        time_s=None,
        sha256=SHA,
        objects=own,
        proposals=Proposals(
            boxes=boxes,
            scores=[0.5] * len(boxes),
            areas=[1] * len(boxes),
            negatives=[],
            refused={},
            refused_boxes=[],
            refused_reasons=[],
        ),
    )


def sample_record(frames: list[FrameRecord], annotated: bool = True) -> SampleRecord:
    """A sample of these frames."""
    origin = Origin(
        source="s",
        source_id="s",
        uri="u",
        byte_range=None,
        sha256=SHA,
        height=50,
        width=50,
        fps=None,
        num_frames=None,
        license="unknown",
        annotated=annotated,
        conversions=[],
    )
    return SampleRecord(
        key="k",
        kind="clip" if len(frames) > 1 else "image",
        origin=origin,
        stored=Stored(height=50, width=50, scale=1, longest_side=50),
        clip=None,
        proposer="graph/1",
        fingerprint="f",
        frames=frames,
        has_masks=False,
    )


def negatives(*rows: tuple[list[float], float, str]) -> FrameNegatives:
    """Rows of (box, score, class), best first."""
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return FrameNegatives(boxes, scores, tuple(label for _, _, label in rows))


def person(frame: int) -> list[float]:
    """A box that moves on by three pixels a frame: its IoU with the one before is 7 / 13."""
    return [20.0 + 3 * frame, 20, 30 + 3 * frame, 40]


def scene() -> tuple[SampleRecord, list[FrameNegatives]]:
    """The object is in frames 0, 1 and 3; frame 2 is annotated, and does not list it."""
    frames = [frame_record([OBJECT], [person(0)]), frame_record([OBJECT]), frame_record([]), frame_record([OBJECT])]
    found = [
        # The same box twice under two names, and a part of the object: 20 of its 100 pixels.
        negatives((person(0), 0.9, "person"), ([0, 0, 4, 5], 0.6, "wheel"), (person(0), 0.5, "man")),
        negatives((person(1), 0.8, "person")),
        # The object, where this frame does not list it.
        negatives((person(2), 0.95, "person"), (OBJECT, 0.4, "thing")),
        # A loose box of the object: IoU 100 / 250.
        negatives((person(3), 0.8, "person"), ([0, 0, 10, 25], 0.35, "thing")),
    ]
    return sample_record(frames), found
