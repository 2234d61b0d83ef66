"""DeepSORT of the package `trackers` 2.0.1 over a video and its detections, with our embeddings inside.

`python -m tests.tracking.deepsort_with_encoder PACKAGES VIDEO DETECTIONS RESULT MODEL WEIGHTS`, where PACKAGES is a
folder that holds that old version and its supervision (`pip install --no-deps --target PACKAGES trackers==2.0.1
supervision==0.26.0rc7 validators`), and MODEL may be `none`: then all boxes look alike, and motion alone decides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


class AllAlike:
    """An encoder that sees nothing."""

    def extract_features(self, frame: NDArray[np.uint8], detections: Any) -> NDArray[np.float32]:
        """(N, 1): the same for each box."""
        return np.ones((len(detections), 1), np.float32)


def main(packages: str, video: str, detections: str, result: str, model: str, weights: str) -> None:
    """Track, and write MOTChallenge text."""
    sys.path.insert(0, packages)  # before the version that is installed
    # With this it would download weights of its own.
    sys.modules["firerequests"] = SimpleNamespace(FireRequests=None)  # type: ignore[assignment]
    import supervision as sv
    from trackers import DeepSORTTracker

    from trackmill import AppearanceEncoder
    from trackmill.pipeline.formats.mot_text import parse_mot_text
    from trackmill.pipeline.tracking.frame_reader import ReadLimits
    from trackmill.pipeline.tracking.frames import open_frames

    encoder: Any = AllAlike() if model == "none" else AppearanceEncoder(model, weights=weights, device="cpu")
    given = parse_mot_text(Path(detections).read_bytes(), detections, identities=False)
    reader = open_frames(video, ReadLimits())
    # Appearance may join what does not overlap any more: that is what it is for.
    tracker = DeepSORTTracker(
        feature_extractor=encoder,
        frame_rate=reader.fps,
        lost_track_buffer=2 * 30,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=0.0,
        appearance_threshold=0.5,
        appearance_weight=0.7,
    )
    lines = []
    for frame in reader:
        here = given.frames == frame.index + 1
        found = sv.Detections(
            xyxy=given.boxes[here].astype(np.float32),
            confidence=given.confidence[here].astype(np.float32),
            class_id=np.zeros(int(here.sum()), int),
        )
        tracked = tracker.update(found, frame.image)
        for (x0, y0, x1, y1), identity in zip(tracked.xyxy.tolist(), tracked.tracker_id.tolist(), strict=True):
            if identity >= 0:
                lines.append(f"{frame.index + 1},{identity},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},1,-1,-1,-1\n")
    Path(result).write_text("".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
