"""One frame with its boxes, masks and ids drawn on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trackmill.pipeline.inspect.selection import evenly_spaced
from trackmill.pipeline.media.drawing.layers import FAINT, FIRM, label_map, labels_rgba
from trackmill.pipeline.media.drawing.palette import NEGATIVE, PROPOSAL, REFUSED, RGB, SIDECAR, identity_colour, text_on
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.stream import BadShardMember
from trackmill.pipeline.shards.visible import visible_boxes

LAYERS = ("proposals", "negatives", "objects", "refused", "masks")
_GAP = 8


@dataclass(frozen=True, slots=True)
class MoreBoxes:
    """Boxes of a frame that do not come from its shard.

    Args:
        boxes: (N, 4) float32 `xyxy` in pixels of the stored frame.
        titles: what to say of each.
        identities: numbers that decide the colours; None: one colour for all.
        tags: what is written beside each box, perhaps nothing; None: nothing beside any.
    """

    boxes: NDArray[np.float32]
    titles: Sequence[str]
    identities: Sequence[int] | None = None
    tags: Sequence[str] | None = None

    @property
    def colours(self) -> list[RGB]:
        """One for each box."""
        if self.identities is None:
            return [SIDECAR] * len(self.boxes)
        return [identity_colour(identity) for identity in self.identities]


More = Callable[[Sample, int], MoreBoxes]
"""Gives the further boxes of a frame: (sample, position of the frame)."""


def draw_frame(
    sample: Sample,
    frame: int,
    layers: Collection[str] = LAYERS,
    width: int | None = None,
    more: More | None = None,
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of one frame with its layers.

    Args:
        sample: as read from a shard.
        frame: position in the sample.
        layers: which of `LAYERS` to draw; `masks` fills the proposals, negatives and objects that are drawn.
        width: of the picture in pixels; None for the stored width.
        more: further boxes, drawn above all layers.

    Raises:
        BadMember: the frame or a mask is damaged.
    """
    record, stored = sample.record.frames[frame], sample.record.stored
    scale = (width or stored.width) / stored.width
    canvas = Image.fromarray(sample.image(frame))
    if width:
        canvas = canvas.resize((width, max(1, round(stored.height * scale))), Image.Resampling.LANCZOS)
    groups = _boxes_by_layer(sample, frame, layers)
    further = more(sample, frame) if more is not None else None
    if further is not None:
        groups.append((further.boxes.tolist(), further.colours, 1.5))
    if "masks" in layers:
        canvas = _fill(canvas, sample, frame, layers)
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(max(canvas.size) / 400))
    # Sides that lie far outside are moved to just outside: Pillow draws them pixel by pixel.
    beyond = 10 * line
    limits = [side + beyond for side in canvas.size] * 2
    for boxes, colours, thickness in groups:
        for box, colour in zip(boxes, colours):
            sides = [min(max(round(value * scale), -beyond), limit) for value, limit in zip(box, limits)]
            draw.rectangle(sides, outline=colour, width=max(1, round(line * thickness)))
    if "objects" in layers and record.objects is not None:
        colours = [identity_colour(identity) for identity in record.objects.ids]
        visible, names = visible_boxes(sample.record, frame).tolist(), list(map(str, record.objects.ids))
        _tags(draw, visible, names, colours, scale, max(canvas.size) / 50)
    if further is not None and further.tags is not None:
        _tags(draw, further.boxes.tolist(), further.tags, further.colours, scale, max(canvas.size) / 70)
    return np.asarray(canvas)


def draw_sample(
    sample: Sample,
    layers: Collection[str] = LAYERS,
    max_frames: int = 8,
    width: int = 480,
    more: More | None = None,
) -> bytes:
    """PNG of a sample: the picture at its stored size, or frames of the clip side by side, each `width` pixels wide."""
    count = len(sample.record.frames)
    if count == 1:
        return png(draw_frame(sample, 0, layers, more=more))
    drawn = [draw_frame(sample, number, layers, width, more) for number in evenly_spaced(count, max_frames)]
    gap = np.full((drawn[0].shape[0], _GAP, 3), 255, np.uint8)
    strip = [part for picture in drawn for part in (gap, picture)][1:]
    return png(np.concatenate(strip, axis=1))


def png(picture: NDArray[np.uint8]) -> bytes:
    """An RGB array as PNG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def _boxes_by_layer(
    sample: Sample, frame: int, layers: Collection[str]
) -> list[tuple[list[list[float]], list[RGB], float]]:
    record = sample.record.frames[frame]
    proposals, negatives = record.proposals, set(record.proposals.negatives)
    kept = [box for number, box in enumerate(proposals.boxes) if number not in negatives]
    groups: list[tuple[list[list[float]], list[RGB], float]] = []
    if "refused" in layers:
        groups.append((proposals.refused_boxes, [REFUSED] * len(proposals.refused_boxes), 0.5))
    if "proposals" in layers:
        groups.append((kept, [PROPOSAL] * len(kept), 1.0))
    if "negatives" in layers:
        boxes = [proposals.boxes[number] for number in proposals.negatives]
        groups.append((boxes, [NEGATIVE] * len(boxes), 1.0))
    if "objects" in layers and record.objects is not None:
        groups.append((record.objects.boxes, [identity_colour(i) for i in record.objects.ids], 2.0))
    return groups


def _fill(canvas: Image.Image, sample: Sample, frame: int, layers: Collection[str]) -> Image.Image:
    record, stored = sample.record.frames[frame], sample.record.stored
    negatives = set(record.proposals.negatives)
    wanted = [("negatives" if i in negatives else "proposals") in layers for i in range(len(record.proposals.boxes))]
    colours = [NEGATIVE if i in negatives else PROPOSAL for i in range(len(wanted))]
    proposals = [mask if want else None for mask, want in zip(sample.proposal_masks(frame), wanted)]
    pairs = [(proposals, colours, FAINT)]
    if "objects" in layers and record.objects is not None:
        pairs.append((sample.objects_masks(frame), [identity_colour(i) for i in record.objects.ids], FIRM))
    picture = canvas.convert("RGBA")
    for masks, mask_colours, ink in pairs:
        try:
            labels = label_map(masks, stored.height, stored.width, canvas.width / stored.width)
        except ValueError as error:
            raise BadShardMember(
                sample.shard, f"{sample.key}.masks.json", f"a mask of {record.member} {error}"
            ) from None
        layer = Image.fromarray(labels_rgba(labels, mask_colours, ink), "RGBA")
        if layer.size != canvas.size:  # a rounding of one pixel
            layer = layer.resize(canvas.size, Image.Resampling.NEAREST)
        picture.alpha_composite(layer)
    return picture.convert("RGB")


def _tags(
    draw: ImageDraw.ImageDraw,
    boxes: list[list[float]],
    tags: Sequence[str],
    colours: Sequence[RGB],
    scale: float,
    wanted_size: float,
) -> None:
    size = max(10, round(wanted_size))
    font = ImageFont.load_default(size)
    for box, tag, colour in zip(boxes, tags, colours):
        if not tag:
            continue
        corner = (box[0] * scale, max(0.0, box[1] * scale - 1.3 * size))
        left, top, right, bottom = draw.textbbox(corner, tag, font=font)
        draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=colour)
        draw.text(corner, tag, fill=text_on(colour), font=font)
