"""HOTA, CLEAR and Identity against TrackEval 1.3.0 on the same videos: counts equal, scores to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.make_tracks import NO_FAULTS, Faults, coco_rle, make_video, with_masks
from trackmill.pipeline.evaluation.metrics.clear import ClearCounts, clear
from trackmill.pipeline.evaluation.metrics.hota import HotaCounts, hota
from trackmill.pipeline.evaluation.metrics.identity import IdentityCounts, identity
from trackmill.pipeline.evaluation.overlaps import Iou, find_overlaps
from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks, no_tracks

pytest.importorskip("trackeval", reason="trackeval 1.3.0 is the oracle of these tests: install the extra 'oracle'")
from tests.evaluation import oracle

CLEAR_COUNTS = {"IDSW": "IDSW", "Frag": "Frag", "MT": "MT", "PT": "PT", "ML": "ML"} | {
    name: f"CLR_{name}" for name in ("TP", "FN", "FP")
}
CLEAR_SCORES = {"MOTA": "MOTA", "MOTP": "MOTP", "MODA": "MODA", "sMOTA": "sMOTA", "Recall": "CLR_Re"} | {
    "Precision": "CLR_Pr"
}
OF_FALSE_ALARMS = ("MOTA", "MODA", "sMOTA")
"""TrackEval writes 0 for a single sequence without ground truth, but -FP when it pools sequences; we pool."""

Counts = tuple[HotaCounts, ClearCounts, IdentityCounts]


def check(videos: Sequence[Video], iou: Iou = "box") -> None:
    """Each video, and all together."""
    wanted, wanted_together = oracle.evaluate(oracle.similarity_data(video, iou) for video in videos)
    found = []
    for video in videos:
        overlaps = find_overlaps(video.gt, video.predictions, video.num_frames, iou)
        found.append((hota(overlaps), clear(overlaps), identity(overlaps)))
    for video, counts, result in zip(videos, found, wanted):
        check_counts(counts, result, skip=() if len(video.gt) else OF_FALSE_ALARMS)
    together = (
        sum((counts[0] for counts in found), start=HotaCounts.none()),
        sum((counts[1] for counts in found), start=ClearCounts.none()),
        sum((counts[2] for counts in found), start=IdentityCounts.none()),
    )
    check_counts(together, wanted_together)


def check_counts(counts: Counts, wanted: dict[str, Any], skip: Sequence[str] = ()) -> None:
    """Counts exactly, scores within 1e-12."""
    of_hota, of_clear, of_identity = counts
    for name in ("tp", "fn", "fp"):
        np.testing.assert_array_equal(getattr(of_hota, name), wanted[f"HOTA_{name.upper()}"], err_msg=f"HOTA {name}")
    assert of_clear.counts() == {name: wanted[field] for name, field in CLEAR_COUNTS.items()}
    assert of_identity.counts() == {name: wanted[name] for name in ("IDTP", "IDFN", "IDFP")}
    for name, curve in of_hota.curves().items():
        np.testing.assert_allclose(curve, wanted[name], rtol=0, atol=1e-12, err_msg=name)
    scores = of_hota.scores()
    assert set(scores) >= {"HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr", "OWTA"}
    close(scores, {name: float(np.mean(wanted[name])) for name in scores})
    fields = {name: wanted[field] for name, field in CLEAR_SCORES.items() if name not in skip}
    close({name: of_clear.scores()[name] for name in fields}, fields)
    close(of_identity.scores(), {name: wanted[name] for name in ("IDF1", "IDP", "IDR")})


def close(found: dict[str, float], wanted: dict[str, float]) -> None:
    """Same names, values within 1e-12 (relative beyond 1: MOTA has no lower end)."""
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def objects(*frames: dict[int, tuple[float, float, float, float]]) -> Tracks:
    """Boxes `x, y, width, height` by id, frame after frame."""
    rows = [(frame, name, box) for frame, boxes in enumerate(frames) for name, box in boxes.items()]
    xywh = np.array([box for *_, box in rows], np.float64).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return make_tracks([frame for frame, *_ in rows], [name for _, name, _ in rows], boxes)


def video(gt: Tracks, predictions: Tracks, num_frames: int) -> Video:
    return Video(name="case", num_frames=num_frames, gt=gt, predictions=predictions)


A, B, NEAR_A = (0, 0, 10, 10), (100, 0, 10, 10), (1, 0, 10, 10)

CASES = {
    "nothing at all": (objects({}), objects({}), 3),
    "no predictions": (objects({1: A}, {1: A, 2: B}), no_tracks(), 2),
    "no ground truth": (no_tracks(), objects({1: A}, {1: A, 2: B}), 2),
    "one frame": (objects({1: A, 2: B}), objects({5: B, 6: A}), 1),
    "frames with only predictions or only ground truth": (
        objects({}, {1: A}, {}, {1: A}, {1: A}, {}),
        objects({7: A}, {7: A}, {7: A}, {}, {7: A}, {7: A, 8: B}),
        6,
    ),
    # TrackEval passes over a frame in which a side is empty: the gap neither ends a match nor starts a fragment.
    "a gap in which nothing is predicted": (objects({1: A}, {1: A}, {1: A}), objects({7: A}, {}, {8: A}), 3),
    "a gap in which something else is predicted": (
        objects({1: A}, {1: A}, {1: A}, {1: A}),
        objects({7: A}, {9: B}, {8: A}, {7: A}),
        4,
    ),
    "an id that comes back": (
        objects({1: A, 2: B}, {2: B}, {2: B}, {1: A}, {1: A, 2: B}),
        objects({5: A, 6: B}, {6: B}, {5: B}, {6: A}, {5: A, 7: B}),
        5,
    ),
    "two predictions on one object": (objects({1: A}, {1: A}), objects({8: A, 5: A}, {5: A, 8: A}), 2),
    "two objects under one prediction": (objects({3: A, 1: A}, {1: A, 3: A}), objects({8: A}, {8: A}), 2),
    "all boxes the same": (
        objects(*[{4: A, 2: A, 3: A}] * 3),
        objects({9: A, 7: A}, {7: A, 9: A, 1: A}, {1: A, 7: A, 9: A, 5: A}),
        3,
    ),
    "a better overlap that is not the old one": (objects({1: A}, {1: A}), objects({5: NEAR_A}, {5: NEAR_A, 6: A}), 2),
    "boxes without area": (
        objects({1: (0, 0, 0, 0), 2: (5, 5, 0, 4), 3: A}, {1: (0, 0, 10, 0)}),
        objects({1: (0, 0, 0, 0), 2: (5, 5, 0, 4)}, {1: (0, 0, 10, 0), 3: A}),
        2,
    ),
    "boxes that touch": (objects({1: A}), objects({1: (10, 0, 10, 10), 2: (0, 10, 10, 10)}), 1),
    "overlaps too small to count": (
        objects({1: (0, 0, 1e-9, 1e-9), 2: (0, 0, 1e5, 1e5)}),
        objects({1: (0, 0, 1e-9, 1e-9), 2: (1e5 - 1e-6, 1e5 - 1e-6, 1, 1)}),
        1,
    ),
    "tracked in exactly a fifth and four fifths of the frames": (
        objects(*[{1: A, 2: B}] * 5),
        objects({5: A}, {5: A}, {5: A}, {5: A}, {6: B}),
        5,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_made_by_hand(name: str) -> None:
    check([video(*CASES[name])])


def test_cases_together() -> None:
    check([video(*case) for case in CASES.values()])


@pytest.mark.parametrize("twentieths", range(1, 21))
def test_overlaps_exactly_at_a_threshold(twentieths: int) -> None:
    check([video(objects({1: (0, 0, 20, 1)}), objects({1: (0, 0, twentieths, 1)}), 1)])


@pytest.mark.parametrize("seed", range(4))
def test_halves_that_are_not_quite_halves(seed: int) -> None:
    """Boxes of half the width, in decimals: the IoU comes out as .5, or up to an epsilon off.

    The tools differ in how they forgive that: CLEAR and HOTA do, Identity does not.
    """
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(0, 10**5, (40, 2)) / 100, rng.integers(1, 5000, (40, 2)) / 100
    whole = objects(*[{1: (*at, 2 * w, h)} for at, (w, h) in zip(corner, size)])
    half = objects(*[{1: (*at, w, h)} for at, (w, h) in zip(corner, size)])
    iou = find_overlaps(whole, half, 40).pair_iou
    assert (iou < 0.5).any() and (iou == 0.5).any() and np.abs(iou - 0.5).max() < 1e-9
    check([video(whole, half, 40), video(half, whole, 40)])


SCENES: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "one frame": {"num_frames": 1},
    "few objects": {"num_objects": 2, "num_frames": 60},
    "crowded": {"num_objects": 40, "num_frames": 25, "height": 120, "width": 160},
    "coarse grid": {"num_objects": 8, "steps": 1 / 16, "height": 160, "width": 160},
    "coarse and crowded": {"num_objects": 24, "num_frames": 12, "steps": 1 / 24, "height": 160, "width": 200},
    "perfect": {"faults": NO_FAULTS},
    "perfect on a coarse grid": {"faults": NO_FAULTS, "steps": 1 / 24, "height": 160, "width": 160},
    "half is missed": {"faults": Faults(miss=0.5), "num_frames": 50},
    "identities of no use": {"faults": Faults(switch=0.6, swap=2.0), "num_frames": 40},
    "mostly doubled": {"faults": Faults(doubled=0.8, jitter=0.15), "num_frames": 20},
    "nothing is found": {"faults": Faults(miss=1, miss_hidden=1), "num_frames": 20},
    "nothing is there": {"num_objects": 0},
}


@pytest.mark.parametrize("scene", SCENES)
def test_generated_videos(scene: str) -> None:
    check([make_video(seed=seed, **SCENES[scene]) for seed in range(6)])


@pytest.mark.parametrize("scene", ["ordinary", "crowded", "coarse grid", "nothing is found"])
def test_generated_masks(scene: str) -> None:
    options = SCENES[scene] | {"height": 60, "width": 80, "num_frames": 8}
    check([with_masks(make_video(seed=seed, **options), 60, 80) for seed in range(3)], iou="mask")


CROWDS = [
    (855970790, {"num_frames": 2, "num_objects": 41, "steps": 1 / 24, "height": 265, "width": 105}, {"switch": 0}),
    (62787250, {"num_frames": 7, "num_objects": 34, "steps": 1, "height": 256, "width": 143}, {"jitter": 0}),
    (
        203301320,
        {"num_frames": 11, "num_objects": 34, "steps": 1 / 50, "height": 280, "width": 133},
        {"jitter": 0.3, "switch": 0},
    ),
]


@pytest.mark.parametrize(("seed", "options", "faults"), CROWDS)
def test_sums_that_tie_up_to_rounding(seed: int, options: dict[str, Any], faults: dict[str, float]) -> None:
    """Here the last bit of a sum of eight or more overlaps decides a match, so the order of summation has to agree."""
    check([make_video(seed=seed, faults=Faults(**({"doubled": 0.5, "switch": 0.02} | faults)), **options)])


def test_sums_of_masks_tie_the_other_way() -> None:
    """pycocotools' matrices lie column by column in memory, so the sums of columns are the ones that NumPy rounds."""
    scene = make_video(
        seed=209969332,
        num_frames=2,
        num_objects=27,
        height=24,
        width=32,
        steps=0.25,
        faults=Faults(doubled=0.5, jitter=0),
    )
    check([with_masks(scene, 24, 32)], "mask")


def frame_of_boxes() -> st.SearchStrategy[dict[int, tuple[int, int, int, int]]]:
    """Up to five objects on a grid so small that nearly everything ties."""
    place, size = st.integers(0, 4), st.integers(0, 3)
    return st.dictionaries(st.integers(0, 6), st.tuples(place, place, size, size), max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(frame_of_boxes(), frame_of_boxes()), min_size=1, max_size=6))
def test_any_boxes(frames: list[tuple[dict[int, Any], dict[int, Any]]]) -> None:
    check([video(objects(*[gt for gt, _ in frames]), objects(*[guess for _, guess in frames]), len(frames))])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 30), st.sampled_from([1 / 40, 1 / 16, 1 / 4, 100]))
def test_any_scene(seed: int, num_frames: int, num_objects: int, steps: float) -> None:
    check(
        [make_video(seed=seed, num_frames=num_frames, num_objects=num_objects, height=200, width=240, steps=steps)],
    )


def frame_of_masks() -> st.SearchStrategy[dict[int, list[bool]]]:
    """Up to four masks of 3 x 4 pixels, empty ones among them."""
    return st.dictionaries(st.integers(0, 5), st.lists(st.booleans(), min_size=12, max_size=12), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(frame_of_masks(), frame_of_masks()), min_size=1, max_size=4))
def test_any_masks(frames: list[tuple[dict[int, list[bool]], dict[int, list[bool]]]]) -> None:
    sides = []
    for side in (0, 1):
        rows = [(t, name, bits) for t, frame in enumerate(frames) for name, bits in frame[side].items()]
        masks = [coco_rle(np.array(bits).reshape(3, 4)) for *_, bits in rows]
        sides.append(make_tracks([t for t, *_ in rows], [n for _, n, _ in rows], np.zeros((len(rows), 4)), masks=masks))
    check([video(sides[0], sides[1], len(frames))], iou="mask")
