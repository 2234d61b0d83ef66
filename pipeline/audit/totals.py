"""Running sums of an audit, in memory that does not grow with the rows: by frame, by class, by score, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.audit.measure import Chain, MeasuredFrame
from trackmill.pipeline.audit.settings import AuditSettings

SCORE_BINS = 20
"""Bins of equal width between 0 and 1; the last one holds 1.0 too."""
MOST_CLASSES = 5_000
"""Classes that are counted by name, the first ones that occur; a label may be any text, so there may be any number."""
OTHER_CLASSES = "(other classes)"
_MOST_PAIRS = 20_000


@dataclass
class Tally:
    """Counts of some negatives: of a class, or of all. Each array counts by bin of the score, `SCORE_BINS` of them.

    Args:
        rows: all of them.
        on_proposal: that overlap a stored proposal.
        kept: that the trainer keeps.
        in_clips: kept in clips, where a negative can persist.
        persistent: kept and found again in neighbouring frames.
        moving: persistent, and not always in the same place.
        near: kept, and perhaps an annotated object, see `trackmill.pipeline.audit.measure.MeasuredFrame.near`.
    """

    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    on_proposal: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    kept: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    in_clips: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    persistent: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    moving: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    near: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))

    @property
    def median_score(self) -> float:
        """Middle of the bin in which the median lies; 0 where there is none."""
        count = int(self.rows.sum())
        if not count:
            return 0.0
        number = int(np.searchsorted(np.cumsum(self.rows), (count + 1) // 2))
        return (number + 0.5) / SCORE_BINS

    def as_dict(self) -> dict[str, Any]:
        """Sums over all scores, and by score what helps to choose a threshold for one class."""
        sums = {name: int(values.sum()) for name, values in vars(self).items()}
        by_score = {f"{name}_by_score": getattr(self, name).tolist() for name in ("kept", "persistent", "near")}
        return {**sums, "median_score": round(self.median_score, 4), **by_score}


@dataclass
class PerFrame:
    """How many negatives a frame has: exact, because few numbers occur."""

    counts: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float) -> int:
        """The least number that `share` of the frames do not exceed; 0 where there are no frames."""
        wanted, passed = share * self.counts.total(), 0
        for number in sorted(self.counts):
            passed += self.counts[number]
            if passed >= wanted:
                return number
        return 0

    def as_dict(self) -> dict[str, Any]:
        """Mean, quantiles, and frames without any."""
        frames = self.counts.total()
        total = sum(number * count for number, count in self.counts.items())
        return {
            "mean": round(total / max(1, frames), 3),
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "most": max(self.counts, default=0),
            "frames_without": self.counts[0],
        }


@dataclass
class Totals:
    """What an audit counts.

    Args:
        settings: what counted as overlap, kept, persistent.
        samples, clips: looked at; clips are among the samples.
        quarantined: samples without rows because the detector failed on them.
        frames: that can have negatives: the annotated ones, and others that have some all the same. `rows_per_frame`
            and `kept_per_frame` are about them.
        frames_unannotated, rows_unannotated: frames that the data set says nothing about, and negatives in them, any of
            which may be an object.
        near_object: negatives that overlap an annotated object after all; there should be none.
        close, inside, lapsed: kept ones that overlap an annotated object, but not enough to be left out; that lie
            inside one; that overlap an object of a neighbouring frame which is not annotated in this one.
        suppressed, suppressed_by_other: what NMS removes; because of a better one of another class.
        beyond: what the limit removes after that.
        pairs: (class, class of the better one): how often NMS preferred the second.
        chains: lengths of the chains of kept negatives in clips, in stored frames.
    """

    settings: AuditSettings
    samples: int = 0
    clips: int = 0
    quarantined: int = 0
    frames: int = 0
    frames_unannotated: int = 0
    rows_unannotated: int = 0
    near_object: int = 0
    close: int = 0
    inside: int = 0
    lapsed: int = 0
    suppressed: int = 0
    suppressed_by_other: int = 0
    beyond: int = 0
    everything: Tally = field(default_factory=Tally)
    classes: dict[str, Tally] = field(default_factory=dict)
    rows_per_frame: PerFrame = field(default_factory=PerFrame)
    kept_per_frame: PerFrame = field(default_factory=PerFrame)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    chains: Counter[int] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """All negatives."""
        return int(self.everything.rows.sum())

    @property
    def kept(self) -> int:
        """Those that the trainer keeps."""
        return int(self.everything.kept.sum())

    @property
    def persistent(self) -> int:
        """Those that are found again in neighbouring frames."""
        return int(self.everything.persistent.sum())

    @property
    def moving(self) -> int:
        """Those of them that move."""
        return int(self.everything.moving.sum())

    def add(self, frames: Sequence[MeasuredFrame], chains: Sequence[Chain]) -> None:
        """Count a sample."""
        self.samples += 1
        self.clips += len(frames) > 1
        if len(frames) > 1:
            self.chains.update(len(chain) for chain in chains)
        least, far = self.settings.persistent_frames, self.settings.moving_lengths
        persistent = np.array([len(chain) >= least for chain in chains] + [False])  # the last one is for index -1
        moving = np.array([len(chain) >= least and chain.travel >= far for chain in chains] + [False])
        for frame in frames:
            if not frame.annotated:
                self.frames_unannotated += 1
                self.rows_unannotated += len(frame.negatives)
            if frame.annotated or len(frame.negatives):
                self._add_frame(frame, persistent[frame.chain], moving[frame.chain], len(frames) > 1)

    def _add_frame(
        self, frame: MeasuredFrame, persistent: NDArray[np.bool_], moving: NDArray[np.bool_], in_clip: bool
    ) -> None:
        own, settings = frame.negatives, self.settings
        self.frames += 1
        self.rows_per_frame.counts[len(own)] += 1
        self.kept_per_frame.counts[int(frame.kept.sum())] += 1
        self.near_object += int((frame.object_iou >= settings.min_iou).sum())
        self.close += int((frame.close & frame.kept & (frame.object_iou < settings.min_iou)).sum())
        self.inside += int((frame.inside & frame.kept).sum())
        self.lapsed += int((frame.lapsed & frame.kept).sum())
        suppressed = frame.better >= 0
        self.suppressed += int(suppressed.sum())
        self.beyond += int((~suppressed & ~frame.kept).sum())
        for row in np.flatnonzero(suppressed):
            ours, theirs = own.labels[row], own.labels[frame.better[row]]
            self.suppressed_by_other += ours != theirs
            if ours != theirs and ((ours, theirs) in self.pairs or len(self.pairs) < _MOST_PAIRS):
                self.pairs[ours, theirs] += 1
        # A score of 0.35 is a little less in float32, and belongs to the bin that begins there.
        bins = np.clip(np.floor(own.scores.astype(np.float64) * SCORE_BINS + 1e-5).astype(np.int64), 0, SCORE_BINS - 1)
        flags = {
            "rows": np.ones(len(own), bool),
            "on_proposal": frame.proposal_iou >= settings.min_iou,
            "kept": frame.kept,
            "in_clips": frame.kept & in_clip,
            "persistent": frame.kept & in_clip & persistent,
            "moving": frame.kept & in_clip & moving,
            "near": frame.kept & frame.near,
        }
        labels = np.array(own.labels, object)
        groups = [(self.everything, np.ones(len(own), bool))]
        groups += [(self._tally(label), labels == label) for label in dict.fromkeys(own.labels)]
        for tally, members in groups:
            for name, flag in flags.items():
                np.add.at(getattr(tally, name), bins[members & flag], 1)

    def _tally(self, label: str) -> Tally:
        if label not in self.classes and len(self.classes) >= MOST_CLASSES:
            label = OTHER_CLASSES
        return self.classes.setdefault(label, Tally())

    def by_number(self) -> list[tuple[str, Tally]]:
        """Classes, the most frequent first."""
        return sorted(self.classes.items(), key=lambda entry: (-int(entry[1].rows.sum()), entry[0]))

    def at_least(self, bin_number: int) -> dict[str, int]:
        """What would be left of all negatives with a score of at least `bin_number / SCORE_BINS`.

        Greedy NMS looks at the best first, so a threshold removes from what it keeps and changes nothing else.
        """
        return {name: int(values[bin_number:].sum()) for name, values in vars(self.everything).items()}

    def as_dict(self, most: int = 100) -> dict[str, Any]:
        """Plain values for JSON; `most` classes and pairs of classes."""
        plain = ["samples", "clips", "quarantined", "frames", "frames_unannotated", "rows_unannotated", "near_object"]
        plain += [
            "close",
            "inside",
            "lapsed",
            "suppressed",
            "suppressed_by_other",
            "beyond",
            "rows",
            "kept",
            "persistent",
            "moving",
        ]
        edges = [number / SCORE_BINS for number in range(SCORE_BINS + 1)]
        return {
            **{name: getattr(self, name) for name in plain},
            "settings": self.settings.model_dump(),
            "per_frame": self.rows_per_frame.as_dict(),
            "kept_per_frame": self.kept_per_frame.as_dict(),
            "scores": {"edges": edges, **{name: v.tolist() for name, v in vars(self.everything).items()}},
            "num_classes": len(self.classes),
            "classes": {label: tally.as_dict() for label, tally in self.by_number()[:most]},
            "class_pairs": [[*pair, count] for pair, count in self.pairs.most_common(most)],
            "chain_lengths": {str(length): self.chains[length] for length in sorted(self.chains)},
        }
