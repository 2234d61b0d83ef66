"""The papers' orderings at a small scale: chain against pairwise, broken and global losses, negatives, chain lengths.

Run it with `python -m tests.benchmarks.orderings`. Without `--gt` it takes the two sequences of `../shared/data/mot15`
that come with pixels: the identities of one train, the other one is measured, and the other way round. The backbone
is frozen, so its bands under every box are pooled once, and only the band head of masa_lite0_colour learns: this
compares losses, not ScaleTrack's temporal fusion. All rows have the same backbone, as many clips and as many updates;
clips of equal length are the same clips. Pseudo-negatives are boxes at random places that overlap nobody. Nothing is
chosen on the measured sequence.

Scores are means over seeds; intervals are paired over people, against the chain.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.learning import SEQUENCES, SHARED
from trackmill.models.detectors.frame_scaling import FrameScaling
from trackmill.models.losses.chain import chain_contrastive_loss
from trackmill.models.losses.rivals import broken_chain_loss, global_infonce_loss, global_supcon_loss, pairwise_loss
from trackmill.models.masa.bands import BandHead
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.evaluation.association.intervals import PersonSums, paired_intervals, retrieval_sums
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.benchmarks.association import association_sequences
from trackmill.pipeline.evaluation.metrics.retrieval import retrieval
from trackmill.pipeline.weights import build_model
from trackmill.schemas.boxes import iou_matrix

GAPS = (20, 50)
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Row:
    """One training: a loss, frames of a clip, and whether there are pseudo-negatives."""

    loss: Loss
    frames: int = 10
    negatives: bool = True


ROWS: dict[str, Row] = {
    "chain": Row(chain_contrastive_loss),
    "pairwise": Row(pairwise_loss, frames=2),
    "broken chain, equal frames": Row(broken_chain_loss),
    "broken chain, equal pairs": Row(broken_chain_loss, frames=18),
    "global SupCon": Row(global_supcon_loss),
    "global InfoNCE": Row(global_infonce_loss),
    "chain, no pseudo-negatives": Row(chain_contrastive_loss, negatives=False),
    "chain of 2": Row(chain_contrastive_loss, frames=2),
    "chain of 5": Row(chain_contrastive_loss, frames=5),
}


@dataclass(frozen=True, eq=False)
class Pooled:
    """A sequence under the frozen backbone.

    Args:
        sequence: its boxes and identities.
        bands: (N, bands, C) of these boxes.
        jittered: (N, bands, C) of the same boxes, moved a little, as training sees them.
        negative_frame: (M,) frames of the random boxes that overlap nobody.
        negatives: (M, bands, C).
    """

    sequence: BoxSequence
    bands: Tensor
    jittered: Tensor
    negative_frame: Tensor
    negatives: Tensor


@torch.inference_mode()
def pool(network: Masa, sequence: BoxSequence, rng: np.random.Generator, per_frame: int = 4) -> Pooled:
    """Every picture goes through the backbone once."""
    head = network.track_head
    assert isinstance(head, BandHead) and callable(sequence.pictures)
    longer, shorter = network.variant.resize
    scaling = FrameScaling(long_side=longer, short_side=shorter)
    shown = np.unique(sequence.frames).tolist()
    bands, jittered, negatives, frames = [], [], [], []
    for frame, image in zip(shown, sequence.pictures(shown), strict=True):
        own = sequence.boxes[sequence.frames == frame].astype(np.float32)
        sides = np.tile(own[:, 2:] - own[:, :2], 2)
        moved = own + sides * rng.uniform(-0.08, 0.08, own.shape).astype(np.float32)
        height, width = image.shape[:2]
        corner = rng.random((4 * per_frame, 2)) * (width, height)
        size = own[rng.integers(len(own), size=len(corner)), 2:] - own[rng.integers(len(own), size=len(corner)), :2]
        drawn = np.concatenate([corner, corner + np.abs(size) + 8], axis=1).astype(np.float32)
        drawn = drawn[(iou_matrix(drawn, own) < 0.1).all(axis=1)][:per_frame]
        maps = network.track_features(scaling.scale([image], "cpu"))
        placed = torch.from_numpy(np.concatenate([own, moved, drawn]) * scaling.factors(height, width))
        first, second, third = head.pool(maps, [placed]).split([len(own), len(own), len(drawn)])
        bands.append(first)
        jittered.append(second)
        negatives.append(third)
        frames += [frame] * len(drawn)
    return Pooled(sequence, torch.cat(bands), torch.cat(jittered), torch.tensor(frames), torch.cat(negatives))


def train(seen: Pooled, row: Row, stride: int, seed: int, updates: int, clips: int) -> BandHead:
    """A head that starts as the plain feature; clips and their order depend on the seed alone."""
    variant = VARIANTS["masa_lite0_colour"]
    head = BandHead(variant.in_channels, variant.strides, variant.bands)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)  # of InfoNCE's positives
    frames = torch.from_numpy(seen.sequence.frames)
    ids = torch.from_numpy(seen.sequence.ids)
    first, last = int(frames.min()), int(frames.max())
    longest = max(each.frames for each in ROWS.values())
    for update in range(updates):
        starts = rng.integers(first, max(first + 1, last - (longest - 1) * stride), size=clips)
        boxes, step, clip, others, other_step, other_clip = [], [], [], [], [], []
        for number, start in enumerate(starts.tolist()):
            for t in range(row.frames):
                rows = torch.nonzero(frames == start + t * stride)[:, 0]
                boxes.append(rows)
                step += [t] * len(rows)
                clip += [number] * len(rows)
                rows = torch.nonzero(seen.negative_frame == start + t * stride)[:, 0] if row.negatives else rows[:0]
                others.append(rows)
                other_step += [t] * len(rows)
                other_clip += [number] * len(rows)
        chosen, random = torch.cat(boxes), torch.cat(others)
        embedded = F.normalize(head(torch.cat([seen.jittered[chosen], seen.negatives[random]])), dim=1)
        own, negatives = embedded.split([len(chosen), len(random)])
        loss = row.loss(
            own,
            torch.tensor(step),
            ids[chosen],
            negatives,
            torch.tensor(other_step, dtype=torch.int64),
            clip=torch.tensor(clip),
            negative_clip=torch.tensor(other_clip, dtype=torch.int64),
            num_clips=clips,
        )
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 - update / updates)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return head.eval()


@torch.inference_mode()
def sums(head: BandHead, seen: Pooled) -> dict[str, PersonSums]:
    """Rank-1 and mAP of a sequence, split by identity."""
    vectors = torch.cat([head(part) for part in seen.bands.split(256)]).numpy()
    found: dict[str, PersonSums] = {}
    for gap in GAPS:
        counts = retrieval(vectors, seen.sequence.frames, seen.sequence.ids, gap)
        found |= {f"{key}@{gap}": entry for key, entry in retrieval_sums(counts).items()}
    return found


def over_seeds(of_seeds: Sequence[Mapping[str, PersonSums]]) -> dict[str, PersonSums]:
    """The mean over seeds, as sums again."""
    return {
        key: PersonSums(
            numerator=np.mean([each[key].numerator for each in of_seeds], axis=0), denominator=first.denominator
        )
        for key, first in of_seeds[0].items()
    }


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gt", default=str(SHARED), metavar="URL", help="MOT-style, with pictures")
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES), metavar="NAME", help="two or more")
    parser.add_argument(
        "--strides", nargs="+", type=int, default=[5, 2], help="frames between those of a clip, of each"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--clips", type=int, default=2, help="clips of an update")
    options = parser.parse_args()
    if options.gt == str(SHARED) and not SHARED.is_dir():
        print("../shared/data/mot15 is not here: give --gt, --sequences and --strides", file=sys.stderr)
        return 2
    network = build_model("masa_lite0_colour", "imagenet")
    sequences, _ = association_sequences(
        options.gt, AssociationSettings(embeddings="hsv", sequences=tuple(options.sequences))
    )
    pooled = [pool(network, sequence, np.random.default_rng(7)) for sequence in sequences]
    strides = dict(zip(options.sequences, options.strides, strict=True))
    assert isinstance(network.track_head, BandHead)
    plain = [sums(network.track_head, each) for each in pooled]
    print(f"{options.seeds} seeds, {options.updates} updates of {options.clips} clips")
    chain = report("untrained", plain, None)
    for name, row in ROWS.items():
        measured = []
        for held in pooled:
            others = [each for each in pooled if each is not held]
            seeds = []
            for seed in range(options.seeds):
                seen = others[seed % len(others)]
                fit = functools.partial(train, seen, row, strides[seen.sequence.name])
                seeds.append(sums(fit(seed, options.updates, options.clips), held))
            measured.append(over_seeds(seeds))
        if name == "chain":
            chain = report(name, measured, plain, "untrained")
        else:
            report(name, measured, chain)
    return 0


def report(
    name: str,
    held: Sequence[Mapping[str, PersonSums]],
    against: Sequence[Mapping[str, PersonSums]] | None,
    to: str = "",
) -> Sequence[Mapping[str, PersonSums]]:
    """A row: the means over the sequences that were held out, and what they differ from the others by."""
    columns = {key: [each[key] for each in held] for key in held[0]}
    scores = {
        key: [float(each.scores(np.ones((1, len(each.numerator))))[0]) for each in of] for key, of in columns.items()
    }
    line = "  ".join(f"{key} {100 * float(np.mean(each)):.1f}" for key, each in scores.items())
    if against is not None:
        other = {key: [each[key] for each in against] for key in held[0]}
        for key, interval in paired_intervals(columns, other, draws=1000, seed=0).items():
            if interval is not None:
                low, high = 100 * interval.low, 100 * interval.high
                line += f"  {key} {100 * interval.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    print(f"{name:28s} {line}{'  against ' + to if to else ''}", flush=True)
    return held


if __name__ == "__main__":
    sys.exit(main())
