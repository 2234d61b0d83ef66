"""MASA with boxes of a detector, and with two frames of a clip as its views, both out of sidecars."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("albumentations", reason='needs pip install -e ".[train]"')

from tests.loader.make_clips import DrawnClip, make_clips
from tests.tasks.test_masa_task import SMALL_VIEWS, Stored
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.contract import UnfitSample
from trackmill.pipeline.loader.views.pair import make_pair
from trackmill.pipeline.sidecars.about import SidecarError
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.tasks.association_benchmark import EvaluationSettings
from trackmill.pipeline.tasks.masa.chains import draw_frames
from trackmill.pipeline.tasks.masa.examples import Example, MakeMasaExample
from trackmill.pipeline.tasks.masa.objects import ObjectSettings, draw_picture
from trackmill.pipeline.tasks.masa.settings import LossSection, ModelSettings
from trackmill.pipeline.tasks.masa.task import MasaTask
from trackmill.pipeline.training.loop import data_identity

PEOPLE = ((5, 5, 45, 45), (50, 10, 90, 60), (20, 60, 70, 85))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class WithTables(Stored):
    """A stored sample with rows of sidecars by name and frame."""

    tables: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)

    def sidecar(self, name: str, frame: int) -> dict[str, np.ndarray]:
        rows = self.tables[name].get(frame, {})
        boxes = np.array(rows.get("box", ()), np.float32).reshape(-1, 4)
        found = {"box": boxes, "score": np.array(rows.get("score", np.full(len(boxes), 0.9)), np.float32)}
        return found | ({"chain": np.array(rows.get("chain", ()), np.int32)} if name == "chains" else {})


def chained(gap: int = 1) -> WithTables:
    """Three people in frames 0, `gap`, ...; person 2 only in the first, and a box of nobody in the last."""
    first = {"box": PEOPLE, "chain": [0, 1, 2]}
    later = {"box": PEOPLE[:2], "chain": [0, 1]}
    detected = {"box": [*PEOPLE, (6, 5, 45, 46), (60, 65, 80, 89)], "score": [0.9, 0.8, 0.7, 0.6, 0.5]}
    return WithTables(
        num_frames=4 * gap,
        tables={
            "chains": {0: first, gap: later, 2 * gap: later},
            "detections": dict.fromkeys((0, gap, 2 * gap), detected),
        },
    )


def test_boxes_of_a_detector_stand_in_for_proposals() -> None:
    rows = {"box": [(50, 10, 90, 60), (0, 0, 9, 9), (10, 10, 60, 80)], "score": [0.9, 0.8, 0.2]}
    sample = WithTables(tables={"detections": {0: rows}}, annotated=((1, 2, 30, 40),))
    found = draw_picture(sample, rng(), ObjectSettings(sidecar="detections", min_score=0.5))
    assert found.boxes.tolist() == [[50, 10, 90, 60], [0, 0, 9, 9]] and found.ids.tolist() == [1, 2]
    large = draw_picture(sample, rng(), ObjectSettings(sidecar="detections", min_score=0.5, min_side=10, random=3))
    assert len(large.ids) == 4 and large.boxes[0].tolist() == [50, 10, 90, 60], "beside random ones"
    nobody = draw_picture(sample, rng(), ObjectSettings(sidecar="detections", min_score=0.95))
    assert len(nobody.ids) == 0, "neither proposals nor annotated objects take their place"
    make = MakeMasaExample(objects=ObjectSettings(sidecar="detections", min_score=0.95), views=SMALL_VIEWS)
    with pytest.raises(UnfitSample, match="neither it nor its neighbours have an object"):  # it does not count as bad
        make(sample, rng(), lambda: sample)


def test_two_frames_share_the_ids_of_chains_and_no_others() -> None:
    settings, drawn = ObjectSettings(sidecar="detections", chains="chains"), set()
    for seed in range(40):
        pair = draw_frames(chained(), rng(seed), settings)
        assert pair is not None
        ids = [{tuple(box): name for box, name in zip(view.boxes.tolist(), view.ids.tolist())} for view in pair]
        shared = set(pair[0].ids.tolist()) & set(pair[1].ids.tolist())
        assert shared == {ids[0][PEOPLE[0]], ids[0][PEOPLE[1]]} and min(min(view.ids.tolist()) for view in pair) > 0
        assert all(ids[0][box] == ids[1][box] for box in PEOPLE[:2])
        frames = tuple(int(view.image.max()) - 200 for view in pair)
        drawn.add(frames)
        for view, found in zip(pair, ids):
            assert len(set(found.values())) == len(view.ids), "each is somebody else"
            assert found.keys() == {*PEOPLE, (60, 65, 80, 89)}, (
                "all people, and who is no chain; the near copy of a chain's box is that chain"
            )
    assert drawn == {(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)}


def test_frames_are_no_farther_apart_than_the_gap() -> None:
    near = {"chains": "chains", "sidecar": "detections"}
    for seed in range(20):
        pair = draw_frames(chained(3), rng(seed), ObjectSettings(chain_gap=3, **near))
        assert pair is not None and abs(int(pair[0].image.max()) - int(pair[1].image.max())) == 3
    assert draw_frames(chained(3), rng(), ObjectSettings(chain_gap=2, **near)) is None
    small = ObjectSettings(min_side=60, **near)
    assert draw_frames(chained(), rng(), small) is None, "no chain is large enough"
    few = draw_frames(chained(), rng(), ObjectSettings(maximum=2, **near))
    assert few is not None and few[0].ids.tolist() == few[1].ids.tolist(), "what both have comes first"


def test_examples_mix_frames_and_views_as_told() -> None:
    def decoded(share: float, seed: int) -> int:
        """Number of frames that an example is made of."""
        seen: list[int] = []

        class Counting(WithTables):
            def image(self, frame: int) -> np.ndarray:
                seen.append(frame)
                return super().image(frame)

        clip = Counting(num_frames=4, tables=chained().tables)
        settings = ObjectSettings(sidecar="detections", chains="chains", chain_share=share)
        example = MakeMasaExample(objects=settings, views=SMALL_VIEWS)(clip, rng(seed), chained)
        assert np.intersect1d(example.key.ids, example.reference.ids).size
        return len(set(seen))

    counts = [[decoded(share, seed) for seed in range(30)].count(2) for share in (0, 0.5, 1)]
    assert counts[0] == 0 and 5 <= counts[1] <= 25 and counts[2] == 30
    picture = WithTables(tables={"detections": {0: {"box": PEOPLE}}})
    settings = ObjectSettings(sidecar="detections", chains="chains", chain_share=1)
    make = pickle.loads(pickle.dumps(MakeMasaExample(objects=settings, views=SMALL_VIEWS)))
    assert len(make(picture, rng(), lambda: picture).key.ids) == 3, "a picture has one frame, and no chains are read"
    first, again = (make(chained(), rng(7), chained) for _ in range(2))
    for one, two in ((first.key, again.key), (first.reference, again.reference)):
        assert np.array_equal(one.image, two.image) and np.array_equal(one.boxes, two.boxes)


@pytest.mark.parametrize("mixed", [False, True])
def test_without_sidecars_an_example_is_what_it_was(mixed: bool) -> None:
    """The same random numbers in the same order: the picture, the partner, the two views."""
    views = SMALL_VIEWS.model_copy(update={"mixup": 0.5, "occluders": 2} if mixed else {})
    settings, other = ObjectSettings(maximum=2, random=2), Stored(key="b", origin="b.jpg")
    for seed in range(4):
        found: Example = MakeMasaExample(objects=settings, views=views)(Stored(num_frames=3), rng(seed), lambda: other)
        draws = rng(seed)
        picture = draw_picture(Stored(num_frames=3), draws, settings)
        partner = draw_picture(other, draws, settings) if mixed else None
        expected = make_pair(picture.image, picture.boxes, picture.ids, draws, views, partner)
        for one, two in zip((found.key, found.reference), expected):
            assert np.array_equal(one.image, two.image) and np.array_equal(one.ids, two.ids)
            assert np.array_equal(one.boxes, two.boxes)


def task(**objects: Any) -> MasaTask:
    loss = LossSection(detection=False, auxiliary_weight=0.0)
    return MasaTask(ModelSettings(), ObjectSettings(**objects), SMALL_VIEWS, loss, EvaluationSettings())


def test_a_run_depends_on_the_sidecars_it_reads(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path)).root
    make_sidecar(root, "chains")
    make_sidecar(root, "negatives", settings={"detector": "proposals"})
    catalog = read_catalog(root)
    assert data_identity(catalog, task()).keys() == {"fingerprint", "samples"}, "as runs before have it"
    assert task().needs_boxes() and not task(sidecar="negatives").needs_boxes() and not task(chains="c").needs_boxes()
    both = data_identity(catalog, task(sidecar="negatives", chains="chains"))
    assert both["sidecars"].keys() == {"negatives", "chains"}
    with pytest.raises(SidecarError, match=r"'negatives' holds no chains: its columns are .*, without 'chain'"):
        data_identity(catalog, task(chains="negatives"))
    with pytest.raises(SidecarError, match=r"no sidecar 'people'"):
        data_identity(catalog, task(sidecar="people"))


def test_from_masklets_to_a_clip_of_squares() -> None:
    """Chains of real rows: the colour under each id is one colour in both frames."""
    squares = (((10, 20, 60, 80), (120, 60, 200, 140)), ((20, 22, 70, 82), (110, 58, 190, 138)))
    rows = {frame: {"box": boxes, "chain": [4, 9]} for frame, boxes in enumerate(squares)}
    clip = DrawnClip(squares=squares, sidecars={"chains": rows})
    pair = draw_frames(clip, rng(), ObjectSettings(chains="chains"))
    assert pair is not None
    for identity in np.intersect1d(pair[0].ids, pair[1].ids).tolist():
        seen = []
        for view in pair:
            x, y = (view.boxes[view.ids == identity][0].reshape(2, 2).mean(axis=0)).astype(int)
            seen.append(view.image[y, x].astype(int))
        assert np.abs(seen[0] - seen[1]).max() < 12
