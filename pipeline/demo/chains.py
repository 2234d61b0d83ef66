"""What the chains of the mined clips look like: one row of cut-outs for each of the longest, for the report."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import find_sidecars
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.schemas.boxes import clip_boxes

CUT_OUTS, HEIGHT = 8, 96
"""Of a chain, evenly over its length; their height in pixels."""
_WIDEST = 1.6
"""Width to height of a cut-out at most; what is wider is shown smaller."""
_JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCounts:
    """A sidecar of chains in numbers.

    Args:
        chains: how many, over all clips.
        boxes: that they link.
        longest: stored frames of the longest one.
    """

    chains: int
    boxes: int
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStrip:
    """One chain to look at.

    Args:
        source: file name of its clip.
        frames: stored frames in which it is.
        jpeg: its cut-outs side by side.
    """

    source: str
    frames: int
    jpeg: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Chain:
    sample: Sample
    frames: NDArray[np.int64]
    boxes: NDArray[np.float32]


def show_chains(mined: str, name: str, most: int) -> tuple[ChainCounts, list[ChainStrip]]:
    """Count the chains of a sidecar, and draw the longest ones, of each clip in turn.

    Args:
        mined: root of the data set.
        name: of the sidecar.
        most: strips at most.

    Raises:
        SidecarError: there is no such sidecar.
        BadShard: a sample or a part is damaged.
        OSError: something could not be read.
    """
    by_clip = [sorted(chains, key=lambda chain: -len(chain.frames)) for chains in _of_clips(mined, name)]
    every = [chain for chains in by_clip for chain in chains]
    counts = ChainCounts(
        chains=len(every),
        boxes=sum(len(chain.frames) for chain in every),
        longest=max((len(chain.frames) for chain in every), default=0),
    )
    turns = max(map(len, by_clip), default=0)
    chosen = [chains[turn] for turn in range(turns) for chains in by_clip if turn < len(chains)][:most]
    return counts, [_strip(chain) for chain in chosen]


def _of_clips(mined: str, name: str) -> Iterator[list[_Chain]]:
    dataset = open_dataset(mined)
    assert dataset.layout is not None, "the demonstration mines a data set"
    tables = SidecarTables(find_sidecars(dataset.layout), dataset.shards)
    for row in dataset.stored:
        if row.frames < 2:
            continue
        sample = read_row(dataset, row)
        frames, ids, boxes = [], [], [np.zeros((0, 4), np.float32)]
        for frame in range(row.frames):
            found = tables.rows(name, sample.shard, sample.key, frame)
            frames += [frame] * len(found["chain"])
            ids += found["chain"].tolist()
            boxes.append(found["box"])
        own, every, where = np.array(ids, np.int64), np.concatenate(boxes), np.array(frames, np.int64)
        yield [_Chain(sample, where[own == each], every[own == each]) for each in np.unique(own[own >= 0]).tolist()]


def _strip(chain: _Chain) -> ChainStrip:
    shown = np.unique(np.linspace(0, len(chain.frames) - 1, CUT_OUTS).round().astype(int))
    parts = [_cut_out(chain.sample, int(chain.frames[place]), chain.boxes[place]) for place in shown.tolist()]
    strip = Image.new("RGB", (sum(part.width for part in parts) + 2 * (len(parts) - 1), HEIGHT), (128, 128, 128))
    left = 0
    for part in parts:
        strip.paste(part, (left, (HEIGHT - part.height) // 2))
        left += part.width + 2
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=_JPEG_QUALITY)
    source = chain.sample.record.origin.uri.rsplit("/", 1)[-1]
    return ChainStrip(source=source, frames=len(chain.frames), jpeg=out.getvalue())


def _cut_out(sample: Sample, frame: int, box: NDArray[np.float32]) -> Image.Image:
    image = sample.image(frame)
    x0, y0, x1, y1 = clip_boxes(box[None], *image.shape[:2])[0].round().astype(int).tolist()
    part = Image.fromarray(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    scale = min(HEIGHT / part.height, _WIDEST * HEIGHT / part.width)
    return part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale))))
