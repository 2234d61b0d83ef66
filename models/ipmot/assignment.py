"""Who learns whom in a frame (paper, section 3.3), and which queries become tracks of the next one.

All of it is bookkeeping on numbers that have come from the device in one piece: numpy and scipy, no torch. `L` decoder
layers, `N_d` detect and `N_t` track queries, `G` people in the frame. Queries are counted with detect queries first.

More people than detect queries are no error: the Hungarian assignment leaves the most expensive ones over. They are
background in this frame, and newborn again in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trackmill.models.ipmot.queries import FALSE_POSITIVE

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

INVALID_COST = 1e6
"""In place of a cost that is no number, of a network that has lost itself: its loss says so, on every rank alike."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerAssignment:
    """The positives of one decoder layer: detect queries in their order, then track queries in theirs.

    Args:
        query: (P,) places among the queries.
        target: (P,) places among the people of the frame.
    """

    query: Integers
    target: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """The track queries of the next frame: tracks, then newborns, then false positives from detect queries.

    Args:
        query: (K,) places among the queries.
        ids: (K,) identities, `FALSE_POSITIVE` where a query stands for nobody.
        released: tracks and newborns that lost their identity in this frame, kept or not.
    """

    query: Integers
    ids: Integers
    released: int


def assign(
    costs: Floats,
    target_ids: Integers,
    track_ids: Integers,
    *,
    balanced: bool,
    separate_first_layers: int = 0,
) -> list[LayerAssignment]:
    """The positives of every decoder layer.

    | queries | balanced (QBS, section 3.3) | else (MOTR) |
    |---|---|---|
    | track query with identity k | box of k if present, else background | the same |
    | detect queries | Hungarian against all G | Hungarian against people without a track |

    Args:
        costs: (L, N_d, G) of `trackmill.models.ipmot.matching`, for detect queries alone.
        target_ids: (G,) identities, each once.
        track_ids: (N_t,) identities of the track queries, or `FALSE_POSITIVE`.
        balanced: query-balanced strategy.
        separate_first_layers: layers in which track queries take no part (MeMOTR): detect queries learn everybody
            there, and track queries are background.
    """
    num_layers, num_detect, _ = costs.shape
    costs = np.nan_to_num(costs, nan=INVALID_COST, posinf=INVALID_COST, neginf=-INVALID_COST)
    tracked_query, tracked_target = _present(track_ids, target_ids)
    everyone = np.arange(len(target_ids))
    untracked = np.setdiff1d(everyone, tracked_target)
    layers = []
    for layer in range(num_layers):
        apart = layer < separate_first_layers
        wanted = everyone if balanced or apart else untracked
        query, target = linear_sum_assignment(costs[layer][:, wanted])
        query, target = [query], [wanted[target]]
        if not apart:
            query.append(num_detect + tracked_query)
            target.append(tracked_target)
        layers.append(LayerAssignment(query=np.concatenate(query), target=np.concatenate(target)))
    return layers


def newborns(last: LayerAssignment, target_ids: Integers, track_ids: Integers) -> NDArray[np.bool_]:
    """(P,) which positives of a layer are people that no track query holds, each found by its detect query."""
    return ~np.isin(target_ids[last.target], track_ids)


def keep(
    last: LayerAssignment,
    overlaps: Floats,
    scores: Floats,
    target_ids: Integers,
    track_ids: Integers,
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    newborn_iou_threshold: float = 0.0,
    released: Literal["score", "always"] = "score",
) -> Kept:
    """Which queries go on, while training.

    | query | goes on |
    |---|---|
    | track whose person is there, IoU >= threshold | with its identity, whatever its score |
    | track whose person is there, IoU below | its identity is released; without one, if its score is above 0.5 |
    | track whose person is not there | with its identity: the person may return |
    | track without identity | if its score is above 0.5 |
    | detect query matched to a newborn | as a track with its identity [D], whatever its score |
    | detect query matched to a tracked person | never |
    | unmatched detect query | without identity, if its score is above 0.5 |

    Args:
        last: positives of the last layer.
        overlaps: (P,) IoU of each positive with its person.
        scores: (N_d + N_t,) s.
        target_ids: (G,).
        track_ids: (N_t,).
        score_threshold, iou_threshold: see `trackmill.models.ipmot.variants.Variant`.
        newborn_iou_threshold, released: see `trackmill.models.ipmot.clip_records.ClipPassSettings`.
    """
    num_detect = len(scores) - len(track_ids)
    above = scores > score_threshold
    born = newborns(last, target_ids, track_ids)
    is_track = last.query >= num_detect

    ids = track_ids.copy()
    lost = last.query[is_track & (overlaps < iou_threshold)] - num_detect
    ids[lost] = FALSE_POSITIVE
    stays = (ids != FALSE_POSITIVE) | above[num_detect:]
    if released == "always":
        stays[lost] = True

    new_query, new_ids = last.query[born], target_ids[last.target[born]].copy()
    missed = overlaps[born] < newborn_iou_threshold
    new_ids[missed] = FALSE_POSITIVE
    new_stays = ~missed | above[new_query] | (released == "always")

    unmatched = np.setdiff1d(np.flatnonzero(above[:num_detect]), last.query)
    query = np.concatenate([num_detect + np.flatnonzero(stays), new_query[new_stays], unmatched])
    kept_ids = np.concatenate([ids[stays], new_ids[new_stays], np.full(len(unmatched), FALSE_POSITIVE)])
    return Kept(
        query=query.astype(np.int64), ids=kept_ids.astype(np.int64), released=len(lost) + int(np.count_nonzero(missed))
    )


def overlaps_of(boxes: Floats, targets: Floats) -> Floats:
    """IoU of pairs of boxes, (P, 4) and (P, 4) cx, cy, w, h, as (P,); 0 where neither has an area."""
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, targets[:, :2] - targets[:, 2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, targets[:, :2] + targets[:, 2:] / 2)
    shared = (high - low).clip(min=0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + targets[:, 2:].prod(axis=1) - shared
    result: Floats = np.where(union > 0, shared / np.where(union > 0, union, 1), 0).astype(np.float32)
    return result


def _present(track_ids: Integers, target_ids: Integers) -> tuple[Integers, Integers]:
    """Tracks whose person is in the frame, and where the person is among the targets."""
    places = {identity: place for place, identity in enumerate(target_ids.tolist())}
    pairs: Sequence[tuple[int, int]] = [
        (query, places[identity])
        for query, identity in enumerate(track_ids.tolist())
        if identity != FALSE_POSITIVE and identity in places
    ]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
