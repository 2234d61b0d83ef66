"""Identity scores: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016.

Numbers agree with TrackEval 1.3.0 (`metrics/identity.py`); matches need an IoU of at least .5. TrackEval minimises
misses and false alarms over a square matrix. This code maximises the number of frames that one-to-one pairs of
identities share, which has the same optimum and needs only identities that match in some frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from trackmill.pipeline.evaluation.overlaps import Overlaps


@dataclass(frozen=True, kw_only=True)
class IdentityCounts:
    """True positives, misses and false alarms under the best one-to-one pairing of identities; `+` pools videos."""

    idtp: int = 0
    idfn: int = 0
    idfp: int = 0

    @classmethod
    def none(cls) -> IdentityCounts:
        """The counts before any video."""
        return cls()

    def __add__(self, other: IdentityCounts) -> IdentityCounts:
        return IdentityCounts(idtp=self.idtp + other.idtp, idfn=self.idfn + other.idfn, idfp=self.idfp + other.idfp)

    def scores(self) -> dict[str, float]:
        """IDF1 = 2 IDTP / (2 IDTP + IDFP + IDFN), IDP, IDR (eq. 8-10 of the paper); fractions."""
        return {
            "IDF1": self.idtp / max(1, self.idtp + 0.5 * (self.idfp + self.idfn)),
            "IDP": self.idtp / max(1, self.idtp + self.idfp),
            "IDR": self.idtp / max(1, self.idtp + self.idfn),
        }

    def counts(self) -> dict[str, int]:
        """Under TrackEval's names."""
        return {"IDTP": self.idtp, "IDFN": self.idfn, "IDFP": self.idfp}


def identity(overlaps: Overlaps) -> IdentityCounts:
    """Count one video."""
    close = overlaps.pair_iou >= 0.5  # without the tolerance that TrackEval has in CLEAR and HOTA
    gt, rows = np.unique(overlaps.gt_ids[overlaps.pair_gt[close]], return_inverse=True)
    pred, columns = np.unique(overlaps.pred_ids[overlaps.pair_pred[close]], return_inverse=True)
    together = np.bincount(rows * len(pred) + columns, minlength=len(gt) * len(pred)).reshape(len(gt), len(pred))
    idtp = int(together[linear_sum_assignment(together, maximize=True)].sum()) if together.size else 0
    return IdentityCounts(idtp=idtp, idfn=overlaps.num_gt - idtp, idfp=overlaps.num_pred - idtp)
