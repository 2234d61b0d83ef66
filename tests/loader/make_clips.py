"""Clips drawn by code for tests of the loader: coloured squares on grey, as one sample or as a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tests.make_dataset import FINGERPRINT, make_item, make_media, write_samples
from tests.make_media import jpeg_bytes
from trackmill.pipeline.shards.decode import Sample, decode_jpeg
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.sidecars.producer import Rows
from trackmill.pipeline.sidecars.producers.chains import ChainProducer

COLOURS = ((230, 40, 40), (40, 200, 40), (50, 70, 240), (230, 220, 40), (220, 50, 220))
GREY = 120
Rows_ = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """A stored clip in which square `i` has colour `i`, and masklet 70 + i if `annotated`.

    Args:
        squares: for each frame, each square's box; None where it is not in the frame.
        annotated: frames with masklets; None: all.
        sidecars: rows by name and frame.
    """

    squares: tuple[tuple[tuple[int, int, int, int] | None, ...], ...]
    annotated: frozenset[int] | None = None
    sidecars: Mapping[str, Mapping[int, Rows_]] = field(default_factory=dict)
    height: int = 160
    width: int = 240
    key: str = "drawn"
    origin: str = "videos/drawn.mp4"
    source: str = "videos"

    @property
    def num_frames(self) -> int:
        return len(self.squares)

    @property
    def video(self) -> str:
        return self.origin if self.num_frames > 1 else ""

    @cached_property
    def jpegs(self) -> list[bytes]:
        found = []
        for boxes in self.squares:
            image = np.full((self.height, self.width, 3), GREY, np.uint8)
            for box, colour in zip(boxes, COLOURS):
                if box is not None:
                    x0, y0, x1, y1 = np.clip(box, 0, (self.width, self.height) * 2).tolist()
                    image[y0:y1, x0:x1] = colour
            found.append(jpeg_bytes(image))
        return found

    def image(self, frame: int, least: tuple[int, int] = (0, 0)) -> np.ndarray:
        return decode_jpeg(self.jpegs[frame], "shard", f"f{frame}", self.height, self.width, least)

    def frame_index(self, frame: int) -> int:
        return 4 * frame

    def frame_time(self, frame: int) -> float:
        return frame / 6

    def proposals(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.array([box for box in self.squares[frame] if box], np.float32).reshape(-1, 4)
        return boxes, np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)

    def objects(self, frame: int) -> tuple[np.ndarray, np.ndarray] | None:
        if self.annotated is not None and frame not in self.annotated:
            return None
        there = [(box, 70 + i) for i, box in enumerate(self.squares[frame]) if box]
        boxes = np.array([box for box, _ in there], np.float32).reshape(-1, 4)
        return boxes, np.array([name for _, name in there], np.int64)

    def sidecar(self, name: str, frame: int) -> dict[str, np.ndarray]:
        rows = self.sidecars[name].get(frame, {})
        count = len(rows.get("box", ()))
        found = {"box": np.array(rows.get("box", ()), np.float32).reshape(count, 4)}
        found["score"] = np.array(rows.get("score", np.linspace(0.9, 0.5, count)), np.float32)
        if "chain" in rows or name == "chains":
            found["chain"] = np.array(rows.get("chain", ()), np.int32)
        return found


def make_clips(root: str, num_clips: int = 3, num_frames: int = 12, num_images: int = 4) -> Layout:
    """A mined data set of clips with masklets, and of pictures between them: `make_sidecar` gives it chains."""
    layout = Layout(root)
    samples = [(make_item("images", f"pic{n}"), make_media(n, 1, 64, 96), n) for n in range(num_images)]
    clips = [
        (make_item("videos", f"clip{n}", frames=num_frames), make_media(50 + n, num_frames, 64, 96), 50 + n)
        for n in range(num_clips)
    ]
    for unit, each in enumerate((samples, clips)):
        rows, shards = write_samples(layout, unit, each)
        write_receipt(layout, unit, rows, shards, FINGERPRINT)
    write_manifest(layout)
    return layout


class FailingChains(ChainProducer):
    """Chains that cannot be made of one clip."""

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`."""
        if "clip1" in sample.key:
            raise ArithmeticError("nothing to follow")
        return super().rows(sample)
