"""Which plain feature tells people apart, in every scene? Layouts of the band head, without any training.

Run it with `python -m tests.benchmarks.transfer`. Without `--gt` it takes the two sequences of `../shared/data/mot15`
that come with pixels. A row is one layout on the frozen EfficientNet-Lite0 with ImageNet weights: masa_lite0, then one
change after another up to `masa_lite0_colour`, then what was left out again. `--weights` adds trained files of
masa_lite0_colour. Every row is given for each sequence alone as well, with the difference to the first row and its 95 %
interval, paired over people. Nothing here is learnt, but masa_lite0_colour was chosen on the two default sequences, as
what helps in both: for a verdict on it, give others.

Compare by rank-1 and mAP. AssA takes a threshold, which with `--crossed` is chosen on the other sequences.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.learning import SEQUENCES, SHARED
from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.models.device import choose_device
from trackmill.models.masa.band_layout import COLOUR_BANDS, SIX_BANDS, BandLayout
from trackmill.models.masa.bands import BandHead
from trackmill.models.masa.model import Masa
from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding, embed, num_frames
from trackmill.pipeline.evaluation.association.measure import AssociationReport, measure_association
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import association_sequences
from trackmill.pipeline.weights import build_model

COLUMNS = ("rank1@20", "mAP@20", "rank1@50", "mAP@50")
MIDDLE = replace(SIX_BANDS, columns=4, samples=2, margin=1 / 6)
THIN = replace(COLOUR_BANDS, coarsest=1.0, colours=0.0)

LAYOUTS: dict[str, BandLayout] = {
    "six bands (masa_lite0)": SIX_BANDS,
    "... of the middle": MIDDLE,
    "... stride 32 x 0.7": replace(MIDDLE, coarsest=0.7),
    "... twelve bands": replace(THIN, coarsest=0.7),
    "... colours (masa_lite0_colour)": COLOUR_BANDS,
    "colours x 0.5": replace(COLOUR_BANDS, colours=0.5),
    "stride 32 x 1": replace(COLOUR_BANDS, coarsest=1.0),
    "whole width": replace(COLOUR_BANDS, margin=0.0, columns=6),
    "six bands and colours": replace(COLOUR_BANDS, bands=6),
}
"""Changes one after another, then single changes of the last one."""


class SharedMaps:
    """Maps of the latest picture, made once for all layouts.

    Args:
        network: masa_lite0_colour.
        scaling: the size at which it sees pictures.
    """

    def __init__(self, network: Masa, scaling: FrameScaling) -> None:
        self._network, self._scaling = network, scaling
        self._image: NDArray[np.uint8] | None = None
        self._maps: list[torch.Tensor] = []

    def under(self, head: BandHead) -> PixelEmbedding:
        """Embeddings of a band head on these maps; without colours it does not see the last one."""

        @torch.inference_mode()
        def of_pixels(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
            device = next(head.parameters()).device
            if image is not self._image:
                self._maps = self._network.track_features(self._scaling.scale([image], device))
                self._image = image
            placed = torch.from_numpy(boxes * self._scaling.factors(*image.shape[:2])).to(device)
            vectors: NDArray[np.float32] = head(head.pool(self._maps[: len(head.strides)], [placed])).cpu().numpy()
            return vectors

        return of_pixels


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=[], metavar="FILE", help="trained heads, one row each")
    parser.add_argument("--gt", default=str(SHARED), metavar="URL", help="MOT-style ground truth with pictures")
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES), metavar="NAME")
    parser.add_argument("--rows", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), metavar="NAME", help="layouts")
    parser.add_argument("--long-side", type=int, default=960, metavar="N", help="pixels (960)")
    parser.add_argument("--crossed", action="store_true", help="AssA, each threshold chosen on the other sequences")
    options = parser.parse_args()
    if options.gt == str(SHARED) and not SHARED.is_dir():
        print("../shared/data/mot15 is not here: give --gt and --sequences", file=sys.stderr)
        return 2

    device = choose_device("auto")
    network = build_model("masa_lite0_colour", "imagenet", device)
    variant = network.variant
    shared = SharedMaps(network, FrameScaling(long_side=options.long_side, short_side=options.long_side))
    heads = {
        name: BandHead(variant.in_channels, variant.strides, LAYOUTS[name]).to(device).eval() for name in options.rows
    }
    for path in options.weights:
        trained = build_model("masa_lite0_colour", path, device)
        assert isinstance(trained.track_head, BandHead)
        heads[path] = trained.track_head
    embeddings = [Embedding(name=name, of_pixels=shared.under(head)) for name, head in heads.items()]

    settings = AssociationSettings(embeddings="hsv", sequences=tuple(options.sequences))
    scored, _ = association_sequences(options.gt, settings)
    progress = ProgressLine(num_frames(scored, embeddings), "embedded", things="frames")
    found = embed(scored, embeddings, progress)
    progress.close()
    rows = {each.name: vectors for each, vectors in zip(embeddings, found, strict=True)}
    for sequences in [scored] if len(scored) == 1 else [scored, *([each] for each in scored)]:
        show({name: measured(name, vectors, sequences) for name, vectors in rows.items()})
    if options.crossed and len(scored) > 1:
        for name, vectors in rows.items():
            each = [crossed(name, vectors, sequence, scored) for sequence in scored]
            print(f"{name:34s} AssA " + "  ".join(f"{sequence.name} {x:.1f}" for sequence, x in zip(scored, each)))
    return 0


def measured(name: str, vectors: Mapping[str, NDArray[np.float32]], sequences: list[BoxSequence]) -> AssociationReport:
    """Rank-1 and mAP; nothing is linked."""
    return measure_association(
        name, vectors, sequences, strides=(), gaps=(20, 50), threshold=0.5, dev=None, memory=10, ema=0.5
    )


def crossed(
    name: str, vectors: Mapping[str, NDArray[np.float32]], sequence: BoxSequence, scored: list[BoxSequence]
) -> float:
    """AssA of a sequence with the threshold that is best on all others."""
    others = [each for each in scored if each is not sequence]
    report = measure_association(
        name, vectors, [sequence], strides=(10,), gaps=(20,), threshold=None, dev=others, memory=10, ema=0.5
    )
    return report.metrics["AssA"] or 0.0


def show(reports: Mapping[str, AssociationReport]) -> None:
    """A row each: the scores, and what rank-1 differs from the first row by."""
    first = next(iter(reports.values()))
    print(f"\n{' and '.join(first.sequences)}\n{'':34s}" + "".join(f"{column:>10s}" for column in COLUMNS))
    for name, report in reports.items():
        numbers = (report.metrics[column] for column in COLUMNS)
        line = "".join("         -" if value is None else f"{value:10.1f}" for value in numbers)
        for column, interval in report.intervals(first).items():
            if report is not first and column.startswith("rank1") and interval is not None:
                low, high = 100 * interval.low, 100 * interval.high
                line += f"  {column} {100 * interval.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
        print(f"{name:34s}{line}")


if __name__ == "__main__":
    sys.exit(main())
