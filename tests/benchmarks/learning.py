"""Did training help? Trained models beside what needs no training, by the association benchmark, with paired intervals.

Run it with `python -m tests.benchmarks.learning --weights RUN/final/model.safetensors ...`. Without `--gt` it takes the
two sequences of `../shared/data/mot15` that come with pixels. Rows: masa_lite0 untrained, which is the backbone's
plain feature in six bands; the same backbone's mean over the region; the backbone on crops; a colour histogram; a
backbone with random weights; then each trained file. Intervals are against the untrained six bands, over people.

Compare by rank-1 and mAP. AssA and IDF1 depend on a threshold that is chosen on the very sequences, unless
`--threshold` or `--dev` says otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torchvision.ops import roi_align

from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.models.device import choose_device
from trackmill.models.masa.model import Masa
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.association.built_in import hsv_histogram
from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding, embed, num_frames
from trackmill.pipeline.evaluation.association.measure import AssociationReport, measure_association
from trackmill.pipeline.evaluation.association.model_embedding import network_embedding
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import association_sequences
from trackmill.pipeline.weights import build_model

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mot15"
SEQUENCES = ("TUD-Stadtmitte", "PETS09-S2L1")
COLUMNS = ("rank1@20", "mAP@20", "rank1@50", "mAP@50", "AssA", "IDF1")
CROP = (256, 128)
"""Height and width that a box is cut out to."""


class SharedBands:
    """Bands of the latest picture's boxes, pooled once for every head that sits on the same frozen backbone.

    Args:
        plain: the untrained model.
        scaling: the size at which it sees pictures.
    """

    def __init__(self, plain: Masa, scaling: FrameScaling) -> None:
        self._plain, self._scaling = plain, scaling
        self._image: NDArray[np.uint8] | None = None
        self._bands = torch.empty(0)

    def under(self, model: Masa) -> PixelEmbedding:
        """Embeddings of a model whose backbone equals the untrained one's."""

        @torch.inference_mode()
        def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
            if image is not self._image:
                device = next(self._plain.parameters()).device
                maps = self._plain.track_features(self._scaling.scale([image], device))
                placed = torch.from_numpy(boxes * self._scaling.factors(*image.shape[:2])).to(device)
                self._bands, self._image = self._plain.track_head.pool(maps, [placed]), image
            return model.track_head(self._bands).cpu().numpy()

        return of_pixels


def same_backbone(one: Masa, other: Masa) -> bool:
    """Whether both see with the same weights."""
    mine, its = one.backbone.state_dict(), other.backbone.state_dict()
    return all(torch.equal(values, its[name]) for name, values in mine.items())


def averaged(model: Masa, scaling: FrameScaling) -> PixelEmbedding:
    """The backbone's maps under each box, RoIAlign 7 x 7, averaged; each map's part of unit length."""

    @torch.inference_mode()
    def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        device = next(model.parameters()).device
        maps = model.backbone_maps(model.prepare(scaling.scale([image], device)))
        placed = torch.from_numpy(boxes * scaling.factors(*image.shape[:2])).to(device)
        parts = [
            F.normalize(roi_align(each, [placed], 7, 1 / stride, 2, aligned=True).mean((2, 3)), dim=1)
            for each, stride in zip(maps, model.variant.strides)
        ]
        return torch.cat(parts, dim=1).cpu().numpy()

    return of_pixels


def cropped(model: Masa) -> PixelEmbedding:
    """The backbone's last map of each box cut out, averaged; what leaves the image repeats its border."""

    @torch.inference_mode()
    def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        device = next(model.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float()
        crops = roi_align(pixels, [torch.from_numpy(boxes).to(device)], CROP, 1.0, 2, aligned=True)
        # (N, 320, 8, 4)
        parts = [model.backbone_maps(model.prepare(some))[-1].mean((2, 3)) for some in crops.split(32)]
        return torch.cat(parts).cpu().numpy()

    return of_pixels


def main() -> int:
    """Print the table and the intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=[], metavar="FILE", help="trained masa_lite0, one row each")
    parser.add_argument("--gt", default=str(SHARED), metavar="URL", help="MOT-style ground truth with pictures")
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES), metavar="NAME")
    parser.add_argument("--dev", nargs="+", metavar="NAME", help="choose thresholds on these")
    parser.add_argument("--threshold", type=float, metavar="X", help="one threshold for all rows")
    parser.add_argument("--long-side", type=int, metavar="N", help="pixels at which frames are seen (default: native)")
    parser.add_argument("--only-bands", action="store_true", help="leave out mean, crops, histogram, random")
    options = parser.parse_args()
    if options.gt == str(SHARED) and not SHARED.is_dir():
        print("../shared/data/mot15 is not here: give --gt and --sequences", file=sys.stderr)
        return 2

    device = choose_device("auto")
    plain = build_model("masa_lite0", "imagenet", device)
    shared = lru_cache(partial(SharedBands, plain))
    rows: dict[str, Callable[[FrameScaling], PixelEmbedding]] = {
        "six bands, untrained": lambda scaling: shared(scaling).under(plain)
    }
    if not options.only_bands:
        random = build_model("masa_lite0", None, device)
        rows |= {
            "mean, untrained": lambda scaling: averaged(plain, scaling),
            "crops, untrained": lambda scaling: cropped(plain),
            "colour histogram": lambda scaling: hsv_histogram,
            "random backbone, bands": lambda scaling: network_embedding(random, scaling, device),
        }
    for path in options.weights:
        trained = build_model("masa_lite0", path, device)
        if same_backbone(plain, trained):
            rows[path] = lambda scaling, trained=trained: shared(scaling).under(trained)
        else:
            rows[path] = lambda scaling, trained=trained: network_embedding(trained, scaling, device)

    settings = AssociationSettings(
        embeddings="hsv",
        sequences=tuple(options.sequences),
        dev=None if options.dev is None else tuple(options.dev),
    )
    scored, dev = association_sequences(options.gt, settings)
    embeddings = [Embedding(name=name, of_pixels=_sized(make, options.long_side)) for name, make in rows.items()]
    both = list({sequence.name: sequence for sequence in (*scored, *(dev or ()))}.values())
    progress = ProgressLine(num_frames(both, embeddings), "embedded", things="frames")
    found = embed(both, embeddings, progress)
    progress.close()
    rules = {"strides": (10,), "gaps": (20, 50), "threshold": options.threshold, "dev": dev, "memory": 10, "ema": 0.5}
    reports = [measure_association(each.name, vectors, scored, **rules) for each, vectors in zip(embeddings, found)]
    show(reports)
    return 0


def _sized(make: Callable[[FrameScaling], PixelEmbedding], long_side: int | None) -> PixelEmbedding:
    """At `long_side`, or at each picture's own size."""
    made: dict[int, PixelEmbedding] = {}

    def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        side = long_side or max(image.shape[:2])
        if side not in made:
            made[side] = make(FrameScaling(long_side=side, short_side=side))
        found: NDArray[np.float32] = made[side](image, boxes)
        return found

    return of_pixels


def show(reports: list[AssociationReport]) -> None:
    """A row each, then what each differs from the first by."""
    width = max(len(report.embedding) for report in reports)
    print(f"{'':{width}s}  " + "  ".join(f"{column:>9s}" for column in COLUMNS))
    for report in reports:
        numbers = [report.metrics[column] for column in COLUMNS]
        shown = "  ".join("        -" if value is None else f"{value:9.1f}" for value in numbers)
        print(f"{report.embedding:{width}s}  {shown}")
    print(f"\nminus {reports[0].embedding}: difference [95 % interval, paired over people]")
    for report in reports[1:]:
        intervals = report.intervals(reports[0])
        shown = []
        for column in COLUMNS[:4]:
            interval = intervals[column]
            if interval is not None:
                low, high = 100 * interval.low, 100 * interval.high
                shown.append(f"{column} {100 * interval.difference:+.1f} [{low:+.1f}, {high:+.1f}]")
        print(f"{report.embedding:{width}s}  " + "  ".join(shown))


if __name__ == "__main__":
    sys.exit(main())
