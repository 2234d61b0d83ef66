"""Videos of coloured squares that move, and a detector that finds them by their colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector
from trackmill.schemas.detections import Detections, make_detections

HEIGHT, WIDTH, SIDE = 64, 160, 20
COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}

Place = Callable[[int], tuple[int, int] | None]
"""Upper left corner x, y of a square in a frame; None where it is not there."""


def picture(frame: int, places: dict[str, Place], background: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: gray stripes, and the squares over them, the first one behind."""
    stripes = background + 25 * ((np.arange(WIDTH) // (5 + background % 7)) % 2)
    image = np.repeat(np.broadcast_to(stripes, (HEIGHT, WIDTH))[..., None], 3, axis=2).astype(np.uint8)
    for name, place in places.items():
        if (corner := place(frame)) is not None:
            x, y = corner
            image[max(0, y) : max(0, y + SIDE), max(0, x) : max(0, x + SIDE)] = COLOURS[name]
    return image


def squares_video(
    path: Path,
    num_frames: int,
    places: dict[str, Place],
    backgrounds: Callable[[int], int] = lambda frame: 60,
    times: Sequence[int] | None = None,
    gop: int = 12,
) -> Path:
    """A video of 24 frames a second; `times` in units of that for a variable rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(24))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "10", "bf": "0", "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0"}
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, places, backgrounds(number)), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, 24)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


class Squares(Detector):
    """Finds each colour once, as the box around its pixels; knows nothing of other frames."""

    names = tuple(COLOURS)
    category_ids = (0, 1, 2)
    looked_at: ClassVar[list[int]] = []

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`."""
        self.looked_at.append(len(images))
        return [self._found(image) for image in images]

    def _found(self, image: NDArray[np.uint8]) -> Detections:
        boxes, labels = [], []
        for label, colour in enumerate(COLOURS.values()):
            near = (np.abs(image.astype(int) - colour) < 80).all(axis=2)
            if near.sum() > 20:
                y, x = np.nonzero(near)
                boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
                labels.append(label)
        return self._detections(boxes, labels)

    def _detections(self, boxes: list[list[int]], labels: list[int]) -> Detections:
        return make_detections(boxes, [0.9] * len(boxes), labels, self.names)


class TwiceEach(Squares):
    """Finds each of them twice, the second time a pixel aside."""

    def _detections(self, boxes: list[list[int]], labels: list[int]) -> Detections:
        again = [[x0 + 1, y0, x1 + 1, y1] for x0, y0, x1, y1 in boxes]
        scores = [0.9] * len(boxes) + [0.8] * len(boxes)
        return make_detections(boxes + again, scores, labels * 2, self.names)
