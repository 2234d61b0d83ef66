"""HOTA, CLEAR and identity counts of one video, summed over videos or classes, and written as a row of scores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from trackmill.pipeline.evaluation.metrics.clear import ClearCounts, clear
from trackmill.pipeline.evaluation.metrics.hota import HotaCounts, hota
from trackmill.pipeline.evaluation.metrics.identity import IdentityCounts, identity
from trackmill.pipeline.evaluation.overlaps import Overlaps
from trackmill.pipeline.evaluation.report.report import Row, row

FAMILIES = ("hota", "clear", "identity")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackCounts:
    """Counts of each metric family (None for one that is not evaluated), and of the objects compared.

    Args:
        gt, predictions: numbers of boxes (or masks) that were compared.
        gt_ids, ids: numbers of identities, summed over videos.
        frames: over all videos, for false alarms per frame; 0 where the benchmark does not report them.
    """

    hota: HotaCounts | None
    clear: ClearCounts | None
    identity: IdentityCounts | None
    gt: int = 0
    predictions: int = 0
    gt_ids: int = 0
    ids: int = 0
    frames: int = 0

    @classmethod
    def none(cls, families: Collection[str] = FAMILIES) -> TrackCounts:
        """The counts before any video."""
        return cls(
            hota=HotaCounts.none() if "hota" in families else None,
            clear=ClearCounts.none() if "clear" in families else None,
            identity=IdentityCounts.none() if "identity" in families else None,
        )

    def __add__(self, other: TrackCounts) -> TrackCounts:
        return TrackCounts(
            hota=self.hota + other.hota if self.hota and other.hota else None,
            clear=self.clear + other.clear if self.clear and other.clear else None,
            identity=self.identity + other.identity if self.identity and other.identity else None,
            gt=self.gt + other.gt,
            predictions=self.predictions + other.predictions,
            gt_ids=self.gt_ids + other.gt_ids,
            ids=self.ids + other.ids,
            frames=self.frames + other.frames,
        )

    def row(self) -> Row:
        """Ratios in percent, and counts; without any ground truth every ratio is None.

        FAF, the false alarms per frame of MOTChallenge's tables, is no percentage and needs no ground truth.
        """
        fractions: dict[str, float] = {}
        counts: dict[str, int] = {}
        if self.hota is not None:
            curves = self.hota.curves()
            fractions |= {name: float(values.mean()) for name, values in curves.items()}
            # At the lowest threshold, .05: how much is found and linked when boxes may be loose.
            fractions |= {f"{name}(0)": float(curves[name][0]) for name in ("HOTA", "LocA")}
        for family in (self.clear, self.identity):
            if family is not None:
                fractions |= family.scores()
                counts |= family.counts()
        if self.clear is not None:
            # What MOTChallenge's tables call them, and the shares that stand there beside the counts.
            fractions |= {"Rcll": fractions["Recall"], "Prcn": fractions["Precision"]}
            fractions |= {f"{name}%": counts[name] / max(1, self.gt_ids) for name in ("MT", "ML")}
        if self.gt == 0:
            fractions = dict.fromkeys(fractions, float("nan"))
        counts |= {"GT": self.gt, "GT_IDs": self.gt_ids, "Dets": self.predictions, "IDs": self.ids}
        record = row(fractions, counts)
        if self.clear is not None and self.frames:
            record["FAF"] = self.clear.fp / self.frames
        return record


def without_matches(counts: TrackCounts) -> TrackCounts:
    """The same numbers without the matches of each frame, which only plots need."""
    return counts if counts.clear is None else replace(counts, clear=replace(counts.clear, matches=None))


def count(overlaps: Overlaps, families: Collection[str] = FAMILIES) -> TrackCounts:
    """Count one video, or one class of one video."""
    return TrackCounts(
        hota=hota(overlaps) if "hota" in families else None,
        clear=clear(overlaps) if "clear" in families else None,
        identity=identity(overlaps) if "identity" in families else None,
        gt=overlaps.num_gt,
        predictions=overlaps.num_pred,
        gt_ids=overlaps.num_gt_ids,
        ids=overlaps.num_pred_ids,
    )
