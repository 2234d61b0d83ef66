"""One frame with its tracks drawn on it: boxes, masks, ids, names, and the way each object came."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from trackmill.pipeline.media.drawing.layers import FIRM, label_map, labels_rgba
from trackmill.pipeline.media.drawing.palette import identity_colour, text_on
from trackmill.schemas.config import Settings
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.tracking import TrackedObjects

Point = tuple[float, float]

Label = Literal["id", "class", "score", "none"]
"""What may stand at a box; `none` alone: nothing."""


class DrawSettings(Settings):
    """How the video with the tracks looks."""

    trail_frames: int = Field(30, ge=0, description="Over how many frames an object's way is drawn; 0: no trail.")
    labels: tuple[Label, ...] = Field(
        (), description="What stands at each box of the video; left out: the id, and the class where there are several."
    )
    quality: int = Field(23, ge=0, le=51, description="x264's constant rate factor; lower is better and larger.")


class Trails:
    """Where the objects of the last frames were: (x, y) of the middle of a box's lower edge, in pixels.

    Args:
        length: frames that are remembered; what is older is forgotten, so memory does not grow with the video.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._points: dict[int, deque[tuple[int, float, float]]] = {}

    def add(self, frame_index: int, tracked: TrackedObjects) -> None:
        """Remember the objects of a frame that comes after all before it."""
        for identity, box in zip(tracked.ids.tolist(), tracked.objects.boxes.tolist(), strict=True):
            points = self._points.setdefault(identity, deque())
            points.append((frame_index, (box[0] + box[2]) / 2, box[3]))
        for identity, points in list(self._points.items()):
            while points and points[0][0] <= frame_index - self._length:
                points.popleft()
            if not points:
                del self._points[identity]

    def of(self, identity: int) -> list[tuple[float, float]]:
        """The remembered points of an object, the oldest first."""
        return [(x, y) for _, x, y in self._points.get(identity, ())]

    def __len__(self) -> int:
        return len(self._points)


def draw_tracks(
    image: NDArray[np.uint8], tracked: TrackedObjects, trails: Trails, labels: Sequence[Label] = ()
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: the image with every object in the colour of its id, which stays the same over the video.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        tracked: objects in its pixels.
        trails: with this frame already added.
        labels: what stands at each box, see `DrawSettings`.
    """
    height, width = image.shape[:2]
    colours = [identity_colour(identity) for identity in tracked.ids.tolist()]
    canvas = Image.fromarray(image)
    if tracked.objects.masks is not None and any(tracked.objects.masks):
        canvas = _with_masks(canvas, tracked.objects.masks, colours)
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(max(height, width) / 400))
    size = max(10, round(max(height, width) / 60))
    font = ImageFont.load_default(size)
    # Pillow walks along every pixel of a line, also far outside of the picture.
    margin = 2 * line + 1
    low, high = (-margin, -margin), (width + margin, height + margin)
    for identity, colour in zip(tracked.ids.tolist(), colours, strict=True):
        for begin, end in itertools.pairwise(trails.of(identity)):
            piece = clip_segment(begin, end, low, high)
            if piece is not None:
                draw.line(piece, fill=colour, width=line)
    boxes = np.clip(tracked.objects.boxes, [*low, *low], [*high, *high]).tolist()
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(box, outline=colour, width=line)
    for row, (box, colour) in enumerate(zip(boxes, colours, strict=True)):
        corner = (max(0.0, box[0]), max(0.0, box[1] - 1.3 * size))
        text = _tag(tracked, row, labels)
        if not text:
            continue
        draw.rectangle(draw.textbbox(corner, text, font=font), fill=colour)
        draw.text(corner, text, fill=text_on(colour), font=font)
    return np.asarray(canvas)


def clip_segment(begin: Point, end: Point, low: Point, high: Point) -> tuple[Point, Point] | None:
    """The part of a line that lies within a rectangle (Liang and Barsky, 1984); None where nothing does."""
    first, last = 0.0, 1.0
    for axis in (0, 1):
        way = end[axis] - begin[axis]
        for distance, towards in ((low[axis] - begin[axis], way), (begin[axis] - high[axis], -way)):
            if towards == 0:
                if distance > 0:
                    return None
            elif towards > 0:
                first = max(first, distance / towards)
            else:
                last = min(last, distance / towards)
    if first > last:
        return None
    span = (end[0] - begin[0], end[1] - begin[1])
    at = [(begin[0] + share * span[0], begin[1] + share * span[1]) for share in (first, last)]
    return at[0], at[1]


def _tag(tracked: TrackedObjects, row: int, labels: Sequence[Label]) -> str:
    names = tracked.objects.names
    # With a single class its name says nothing, unless somebody asks for it.
    labels = labels or (("id", "class") if len(names) > 1 else ("id",))
    words = {
        "id": str(tracked.ids[row]),
        "class": names[tracked.objects.labels[row]] if names else "",
        "score": f"{tracked.objects.scores[row]:.2f}",
    }
    return " ".join(filter(None, (words.get(label, "") for label in ("id", "class", "score") if label in labels)))


def _with_masks(
    canvas: Image.Image, masks: tuple[CroppedMask | None, ...], colours: list[tuple[int, int, int]]
) -> Image.Image:
    labels = label_map(masks, canvas.height, canvas.width, 1.0)
    picture = canvas.convert("RGBA")
    picture.alpha_composite(Image.fromarray(labels_rgba(labels, colours, FIRM), "RGBA"))
    return picture.convert("RGB")
