"""Clips: which frames, whose boxes, and boxes that follow the pixels through one augmentation for all frames."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loader.examples import open_loader
from tests.loader.make_clips import COLOURS, DrawnClip, make_clips
from tests.sidecars.test_loader import sample_of
from trackmill.pipeline.loader import stream
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.clips import (
    NEGATIVE,
    ClipExample,
    ClipSettings,
    ClipSources,
    make_clip,
    usable_clips,
)
from trackmill.pipeline.loader.clips.boxes import FrameBoxes, at_most
from trackmill.pipeline.loader.clips.frames import choose_frames, uniform_stride
from trackmill.pipeline.loader.clips.identities import identities_of
from trackmill.pipeline.loader.contract import UnfitSample
from trackmill.pipeline.loader.loader import TooManyBad
from trackmill.pipeline.loader.negatives import NegativeUse
from trackmill.pipeline.loader.views import ViewSettings
from trackmill.pipeline.shards.decode import decode_jpeg
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import NoSidecar, SidecarError
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.tasks.masa.examples import MakeMasaExample
from trackmill.pipeline.tasks.masa.objects import ObjectSettings
from trackmill.pipeline.tasks.scaletrack.examples import MakeScaleTrackExample
from trackmill.schemas.boxes import box_areas, clip_boxes, iou_matrix
from trackmill.schemas.config import ConfigError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def moving(num_frames: int = 12) -> DrawnClip:
    """Two squares that move apart, and one that is only in the middle third of the clip."""
    third = range(num_frames // 3, 2 * num_frames // 3)
    return DrawnClip(
        squares=tuple(
            (
                (10 + 5 * t, 20, 50 + 5 * t, 70),
                (180 - 4 * t, 90 + 2 * t, 230 - 4 * t, 130 + 2 * t),
                (100, 5 + t, 130, 45 + t) if t in third else None,
            )
            for t in range(num_frames)
        )
    )


# Which frames


@pytest.mark.parametrize(
    ("total", "count", "stride"),
    [
        (32, 10, 3),
        (20, 10, 2),
        (19, 10, 1),
        (11, 10, 1),
        (100, 10, 10),
        (100, 2, 10),  # the stride does not depend on T ...
        (100, 5, 10),
        (100, 20, 5),  # ... unless T frames would not fit
        (32, 20, 1),
    ],
)
def test_uniform_frames_have_one_stride_and_every_start(total: int, count: int, stride: int) -> None:
    assert uniform_stride(total, count, 10) == stride
    annotated = 3 * np.arange(total)  # places in the clip: every third frame is annotated
    starts: Counter[int] = Counter()
    draws = 400
    for seed in range(draws):
        frames = choose_frames(annotated, count, "uniform", 10, rng(seed))
        assert np.array_equal(frames, frames[0] + 3 * stride * np.arange(count)) and frames[-1] <= annotated[-1]
        starts[int(frames[0]) // 3] += 1
    possible = total - (count - 1) * stride
    assert set(starts) <= set(range(possible))
    if possible < 15:  # each start is as probable as the others: within five standard deviations
        share = draws / possible
        assert all(abs(starts[start] - share) <= 5 * share**0.5 for start in range(possible))


def test_random_frames_are_sorted_different_and_equally_probable() -> None:
    annotated, seen = np.array([1, 2, 5, 7, 8, 20]), Counter[int]()
    for seed in range(600):
        frames = choose_frames(annotated, 3, "random", 10, rng(seed)).tolist()
        assert frames == sorted(set(frames)) and len(frames) == 3
        seen.update(frames)
    assert set(seen) == set(annotated.tolist()) and all(abs(count - 300) < 75 for count in seen.values())


@pytest.mark.parametrize("sampling", ["uniform", "random"])
def test_a_short_clip_gives_all_that_it_has(sampling: Any) -> None:
    example = make_clip(moving(6), rng(), ClipSettings(size=64, sampling=sampling, min_side=0), ClipSources())
    assert example.frames.tolist() == list(range(6)) and example.images.shape == (6, 64, 64, 3)
    assert example.indices.tolist() == [0, 4, 8, 12, 16, 20] and example.times[3] == pytest.approx(0.5)


def test_only_annotated_frames_count_and_only_used_ones_are_decoded() -> None:
    decoded: list[int] = []

    class Counting(DrawnClip):
        def image(self, frame: int, least: tuple[int, int] = (0, 0)) -> np.ndarray:
            decoded.append(frame)
            return super().image(frame, least)

    clip = Counting(squares=moving(24).squares, annotated=frozenset(range(1, 24, 2)))
    example = make_clip(clip, rng(), ClipSettings(size=64, frames=4, min_side=0), ClipSources())
    assert example.frames.tolist() == decoded and len(decoded) == 4
    assert set(np.diff(decoded)) == {2} and all(frame % 2 for frame in decoded)


# Boxes and pixels


def extent(image: np.ndarray, colour: int) -> np.ndarray | None:
    """The box around the pixels that are nearest to a square's colour."""
    distance = np.abs(image.astype(int) - np.array(COLOURS[colour])).sum(axis=2)
    there = distance < 120
    if not there.any():
        return None
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("seed", range(16))
def test_boxes_follow_the_pixels(seed: int) -> None:
    """Whatever the scale, the crop and the flip: the box that is given is the box that is seen."""
    settings = ClipSettings(size=96, frames=4, min_side=6, min_visible=0, resize=((0.3, 0.6), (0.8, 3))[seed % 2])
    clip = moving()
    example = make_clip(clip, rng(seed), settings, ClipSources())
    names = {}
    height, width = example.size
    assert not example.images[:, height:].any() and not example.images[:, :, width:].any(), "black beside the frame"
    for image, boxes, ids, frame in zip(example.images, example.boxes, example.ids, example.frames.tolist()):
        assert len(boxes) == len(ids) and len(boxes)
        seen = {colour: extent(image, colour) for colour in range(3)}
        for box, identity in zip(boxes, ids.tolist()):
            gaps = {c: np.abs(found - box).max() for c, found in seen.items() if found is not None}
            colour = min(gaps, key=lambda c: gaps[c])
            assert gaps[colour] <= 1.5, (frame, box, seen)
            assert names.setdefault(identity, colour) == colour, "one identity, one square"
        missing = [
            c for c, found in seen.items() if c not in {names.get(i) for i in ids.tolist()} and found is not None
        ]
        for colour in missing:  # only what is too small is left out
            assert (seen[colour][2:] - seen[colour][:2]).min() <= settings.min_side + 2
    assert len(set(names.values())) == len(names)


def test_one_draw_holds_for_all_frames() -> None:
    still = DrawnClip(squares=(((30, 30, 90, 80), (120, 60, 200, 140)),) * 6)
    colours = {"hue": 20, "saturation": 60, "value": 60, "contrast": 0.4, "blur": 1.5}
    settings = ClipSettings(size=80, min_side=2, min_visible=0, **colours)
    looks = set()
    for seed in range(12):
        example = make_clip(still, rng(seed), settings, ClipSources())
        assert all(np.array_equal(image, example.images[0]) for image in example.images)
        assert all(np.array_equal(boxes, example.boxes[0]) for boxes in example.boxes)
        looks.add(example.images[0].tobytes())
    assert len(looks) == 12, "and another one for the next example"


def test_scale_and_flip_have_the_stated_range() -> None:
    still = DrawnClip(squares=(((30, 30, 90, 80), (120, 60, 200, 140)),) * 2, height=160, width=160)
    factors, flips, settings = [], 0, ClipSettings(size=64, min_side=0, min_visible=0, clip=False)
    for seed in range(300):
        example = make_clip(still, rng(seed), settings, ClipSources())
        boxes = dict(zip(example.ids[0].tolist(), example.boxes[0]))
        any_box = next(iter(boxes.values()))
        side = {0: 60, 1: 80}[min(boxes)]
        factors.append((any_box[2] - any_box[0]) * 160 / side / 64)
        if len(boxes) == 2:
            flips += bool(boxes[1][0] < boxes[0][0])
    assert 0.09 < min(factors) < 0.2 and 1.85 < max(factors) < 2.01 and 0.9 < np.mean(factors) < 1.2
    assert 60 < flips < 190


def test_boxes_may_leave_the_view_or_are_cut_or_dropped() -> None:
    clip, wide = moving(), ClipSettings(size=48, frames=5, resize=(1.5, 2), min_side=1)
    for seed in range(10):
        kept = make_clip(clip, rng(seed), wide.model_copy(update={"clip": False}), ClipSources())
        cut = make_clip(clip, rng(seed), wide, ClipSources())
        most = make_clip(clip, rng(seed), wide.model_copy(update={"min_visible": 0.9}), ClipSources())
        assert [ids.tolist() for ids in kept.ids] == [ids.tolist() for ids in cut.ids]
        for free, inside in zip(kept.boxes, cut.boxes):
            assert np.array_equal(clip_boxes(free, *kept.size), inside)
            assert (box_areas(inside) >= 0.3 * box_areas(free) - 1e-3).all()
        for boxes in most.boxes:  # what is left is nearly whole: no side can be shorter than 0.9 of the square's
            assert (boxes[:, 2:] - boxes[:, :2] >= 0.85 * 30 * 1.5 * 48 / 240).all()


def test_something_is_in_view_at_every_scale() -> None:
    """A small object in a corner of a frame that is shown in part."""
    corner = DrawnClip(squares=(((225, 150, 237, 158),),) * 3)
    for seed in range(20):
        example = make_clip(corner, rng(seed), ClipSettings(size=48, resize=(2, 2), min_side=1), ClipSources())
        assert example.num_pairs == 2
    with pytest.raises(UnfitSample, match=r"drawn: in 10 draws no object .* lower clips.min_side"):
        make_clip(corner, rng(), ClipSettings(size=48), ClipSources())


# Identities


def box_rows(*rows: tuple[tuple[int, ...], int]) -> dict[str, Any]:
    return {"box": [box for box, _ in rows], "chain": [chain for _, chain in rows]}


A, B, C = (10, 10, 50, 60), (80, 20, 120, 70), (150, 80, 220, 140)


def test_chains_go_on_under_the_masklet_that_they_follow() -> None:
    """Masklets of A and B in frames 0 and 2; chains in all frames, of C too, and one that changes from A to B."""
    chains = {
        0: box_rows((A, 70), (C, 2), ((12, 10, 50, 60), 3)),
        1: box_rows((A, 70), (B, 5), (C, 2), (B, 3)),
        2: box_rows((A, 70), (B, 3)),
        3: box_rows((C, 2), (B, 5), (A, 70)),
    }
    clip = DrawnClip(squares=((A, B),) * 4, annotated=frozenset({0, 2}), sidecars={"chains": chains})
    both = identities_of(clip, ClipSources(chains="chains"))
    a, b = both.ids[0].tolist()
    assert both.ids[2].tolist() == [a, b]
    by_box = [{tuple(box.tolist()): i for box, i in zip(*frame)} for frame in zip(both.boxes, both.ids)]
    assert by_box[1][A] == by_box[3][A] == a, "chain 70 overlaps the masklet of A, and of nobody else"
    assert by_box[1][C] == by_box[3][C] not in (a, b, -1), "an object of its own"
    assert by_box[3][B] not in (a, b, -1), "chain 5 meets no masklet: number 5 is no masklet's number"
    assert sorted(both.ids[1].tolist()).count(-1) == 1, "chain 3 was A and B: nobody"
    alone = identities_of(clip, ClipSources(chains="chains", masklets=False))
    assert len({each for ids in alone.ids for each in ids.tolist()}) == 4
    assert [len(ids) for ids in identities_of(clip, ClipSources()).ids] == [2, 0, 2, 0]


def test_of_two_chains_of_one_masklet_the_better_one_goes_on() -> None:
    near = (12, 10, 50, 60)
    rows = {"box": [near, A], "chain": [1, 0], "score": [0.4, 0.8]}
    clip = DrawnClip(squares=((A,),) * 3, annotated=frozenset({0}), sidecars={"chains": {0: rows, 1: rows}})
    found = identities_of(clip, ClipSources(chains="chains"))
    assert found.boxes[1].tolist() == [list(A), list(near)] and found.ids[1].tolist() == [0, -1]


def test_a_box_whose_chain_has_a_number_below_zero_is_nobody() -> None:
    """As somebody's own sidecar may say of boxes that are in no chain: they are not one object, whatever they meet."""
    rows = {0: box_rows((A, -1), (B, 4)), 1: box_rows((B, 4), (C, -1)), 2: box_rows((C, -1), (B, 4))}
    clip = DrawnClip(squares=((A,),) * 3, annotated=frozenset(), sidecars={"chains": rows})
    found = identities_of(clip, ClipSources(chains="chains"))
    assert [ids.tolist() for ids in found.ids] == [[-1, 0], [0, -1], [-1, 0]]
    met = DrawnClip(squares=((A,),) * 3, annotated=frozenset({0}), sidecars={"chains": rows})
    assert [ids.tolist() for ids in identities_of(met, ClipSources(chains="chains")).ids] == [[0], [1, -1], [-1, 1]]


def test_who_is_too_small_or_unknown_is_nobody_s_negative() -> None:
    """Negatives are a sidecar that is older than all chains: every box of the frame, and one box that is nobody."""
    small, other = (200, 20, 206, 26), (60, 90, 110, 150)
    everybody = {"box": [small, A, B, other, (11, 10, 50, 60)], "score": [0.9, 0.8, 0.7, 0.6, 0.95]}
    chains = box_rows((A, 0), (B, 1), (small, 2))
    clip = DrawnClip(
        squares=((A, B),) * 4,
        annotated=frozenset(),
        sidecars={"chains": dict.fromkeys(range(4), chains), "negatives": dict.fromkeys(range(4), everybody)},
    )
    sources = ClipSources(chains="chains", negatives=NegativeUse(sidecar="negatives"))
    whole = ClipSettings(size=240, resize=(1, 1), flip=0)
    example = make_clip(clip, rng(), whole, sources)
    for boxes, ids in zip(example.boxes, example.ids):
        assert boxes.tolist() == [list(A), list(B), list(other)] and ids.tolist() == [0, 1, NEGATIVE]
    assert example.num_pairs == 6
    few = make_clip(clip, rng(), whole, sources.model_copy(update={"maximum": 1}))
    assert [len(ids) for ids in few.ids] == [2] * 4 and all(ids[1] == NEGATIVE for ids in few.ids)
    assert few.num_pairs == 3, "one identity, in all frames"
    assert all(boxes[1].tolist() == list(other) for boxes in few.boxes), "who was left out is no negative either"


def test_objects_that_leave_the_stored_frame_are_no_trouble() -> None:
    """Amodal boxes, as MOT17 has them: the part in view counts, for ScaleTrack and for MASA alike."""
    clip = DrawnClip(
        squares=tuple(
            ((-60 + 2 * t, -20, 40 + 2 * t, 60), (150, 100, 239 + t, 300), (225, -90, 400, 25)) for t in range(8)
        )
    )
    objects = ObjectSettings(chains="chains", chain_share=1)
    masa, pairs = MakeMasaExample(objects=objects, views=ViewSettings(size=96)), 0
    for seed in range(10):
        whole = make_clip(clip, rng(seed), ClipSettings(size=128, frames=4, clip=False, min_visible=0), ClipSources())
        example = make_clip(clip, rng(seed), ClipSettings(size=128, frames=4, min_visible=0), ClipSources())
        pairs += example.num_pairs
        for cut, boxes in zip(example.boxes, whole.boxes):
            assert np.array_equal(cut, clip_boxes(boxes, *example.size)) and (box_areas(cut) > 0).all()
        rows = box_rows(*[(box, number) for number, box in enumerate(clip.squares[0])])
        linked = replace(clip, sidecars={"chains": dict.fromkeys(range(8), rows)})
        pair = masa(linked, rng(seed), lambda linked=linked: linked)
        for view in (pair.key, pair.reference):
            assert (box_areas(view.clipped()) > 0).all()
            pairs += len(view.ids)
    assert pairs > 30


@pytest.mark.parametrize("clip_boxes_too", [True, False])
def test_negatives_never_overlap_an_object(clip_boxes_too: bool) -> None:
    corners = rng(5).uniform(0, 160, (60, 2))
    drawn = np.concatenate([corners, corners + rng(6).uniform(10, 120, (60, 2))], axis=1)
    clip = moving()
    rows = {"box": drawn, "score": np.linspace(1, 0.2, 60)}
    clip = replace(clip, sidecars={"detections": dict.fromkeys(range(12), rows)})
    use, found = NegativeUse(sidecar="detections"), 0
    for seed in range(12):
        settings = ClipSettings(size=96, frames=4, resize=(0.5, 3), clip=clip_boxes_too, min_side=1)
        example = make_clip(clip, rng(seed), settings, ClipSources(negatives=use))
        plain = make_clip(clip, rng(seed), settings, ClipSources())
        assert np.array_equal(example.images, plain.images), "negatives change nothing else"
        for boxes, ids in zip(example.boxes, example.ids):
            objects, negatives = boxes[ids >= 0], boxes[ids == NEGATIVE]
            assert (np.diff((ids < 0).astype(int)) >= 0).all(), "objects come first"
            found += len(negatives)
            assert not len(negatives) or iou_matrix(negatives, objects).max(initial=0) < 0.5
    assert found > 50


def test_identities_beyond_the_maximum_are_left_out_whole() -> None:
    def frame(*ids: int) -> FrameBoxes:
        boxes = np.zeros((len(ids), 4), np.float32)
        return FrameBoxes(boxes=boxes, ids=np.array(ids, np.int64), stored=boxes, placed=boxes)

    frames, chosen = [frame(0, 1, 2, 9), frame(1, 2, 3), frame(4, 5)], Counter[int]()
    for seed in range(60):
        kept = at_most(frames, 2, rng(seed))
        assert [len(each.ids) for each in kept] == [2, 2, 2]
        assert kept[0].ids.tolist() == kept[1].ids.tolist() == [1, 2], "those that have a positive come first"
        chosen.update(at_most(frames, 1, rng(seed))[0].ids.tolist())
    assert set(chosen) == {1, 2} and min(chosen.values()) > 15


# Determinism, and data sets


def make(**sources: Any) -> MakeScaleTrackExample:
    return MakeScaleTrackExample(
        clips=ClipSettings(size=64, frames=4, hue=5, min_side=4), sources=ClipSources(**sources)
    )


def plain(examples: list[ClipExample]) -> list[Any]:
    return [
        (
            e.key,
            e.images.tobytes(),
            e.size,
            [b.tobytes() for b in e.boxes],
            [i.tolist() for i in e.ids],
            e.frames.tolist(),
        )
        for e in examples
    ]


def batches(root: str, count: int = 4, **options: Any) -> list[Any]:
    sources = options.pop("sources", {})
    make_example = make(**sources)
    catalog = usable_clips(read_catalog(root), make_example.sources)
    loader = open_loader(catalog, make_example=make_example, batch_size=4, **options)
    found = [plain(next(loader)) for _ in range(count)]
    loader.close()
    return found


def test_the_same_seed_gives_the_same_bytes_and_pictures_are_passed_over(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path), num_images=9).root
    make_sidecar(root, "chains")
    make_sidecar(root, "negatives", settings={"detector": "proposals"})
    sources = {"chains": "chains", "negatives": {"sidecar": "negatives"}}
    found = batches(root, sources=sources)
    assert found == batches(root, sources=sources)
    assert all("clip" in key for batch in found for key, *_ in batch)
    assert any(-1 in ids for batch in found for example in batch for ids in example[4])
    assert pickle.loads(pickle.dumps(make(**sources))) == make(**sources)
    one = sample_of(root, "clip0")
    assert plain([make()(one, rng(3), lambda: one)]) == plain([make()(one, rng(3), lambda: one)])
    assert plain([make()(one, rng(3), lambda: one)]) != plain([make()(one, rng(4), lambda: one)])


def test_a_stored_sample_says_when_a_frame_was_and_decodes_it_smaller(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path), num_clips=1, num_images=1).root
    clip, picture = sample_of(root, "clip0"), sample_of(root, "pic0")
    example = make_clip(clip, rng(), ClipSettings(size=64, frames=3, min_side=2), ClipSources())
    assert np.array_equal(example.indices, 4 * example.frames)
    assert np.allclose(example.times, example.frames / 6, atol=1e-5) and example.origin == clip.origin
    assert picture.frame_index(0) == 0 and np.isnan(picture.frame_time(0))
    whole = clip.image(0)
    # Half and less: in eighths, rounded up; never smaller than what is enough on either side.
    for least, shape in (((0, 0), (64, 96)), ((33, 48), (64, 96)), ((32, 40), (32, 48)), ((9, 10), (16, 24))):
        small = clip.image(0, least=least)
        assert small.shape == (*shape, 3)
        assert np.abs(small.mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 4
    with pytest.raises(BadShard, match="is not a whole JPEG"):
        decode_jpeg(bytes(clip._jpegs[0][1])[:-200], "shard", "f0", 64, 96, (8, 8))
    clip._frames[1]["time_s"] = "soon"
    with pytest.raises(BadShard, match="frame 1: time_s is not valid"):
        clip.frame_time(1)


@pytest.mark.slow
def test_the_same_bytes_with_workers(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path)).root
    assert batches(root, workers=2) == batches(root)


def test_data_sets_without_clips_or_identities_are_refused_before_anything_starts(tmp_path: Path) -> None:
    pictures = read_catalog(make_clips(str(tmp_path / "pictures"), num_clips=0).root)
    with pytest.raises(ConfigError, match="all 4 samples are single pictures"):
        usable_clips(pictures, ClipSources())
    root = make_clips(str(tmp_path / "clips")).root
    catalog = read_catalog(root)
    for sources in (ClipSources(), ClipSources(masklets=False, chains="chains")):
        clips = usable_clips(catalog, sources)
        assert [clips.key(n).split("-")[1] for n in range(len(clips))] == ["clip0", "clip1", "clip2"]
        assert (clips.frames == 12).all() and clips.fingerprint == catalog.fingerprint
    said = rf"without masklets .*: trackmill .*{root}.* links boxes; then set objects\.chains"
    with pytest.raises(ConfigError, match=said):
        usable_clips(catalog, ClipSources(masklets=False))
    make_sidecar(root, "linked", "chains")
    with pytest.raises(ConfigError, match=r'but chains: set objects\.chains = "linked"'):
        usable_clips(read_catalog(root), ClipSources(masklets=False))


def test_sidecars_that_are_missing_wrong_or_quarantined_say_so(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path)).root
    with pytest.raises(NoSidecar, match=r"no sidecar 'chains' .*trackmill .*chains"):
        batches(root, sources={"chains": "chains"})
    make_sidecar(root, "negatives", settings={"detector": "proposals"})
    with pytest.raises(SidecarError, match=r"'negatives' holds no chains: its columns are box, .*without 'chain'"):
        batches(root, sources={"chains": "negatives"})
    make_sidecar(root, "chains", "tests.loader.make_clips:FailingChains")
    found = batches(root, sources={"chains": "chains"}, max_bad=0.5)
    assert not any("clip1" in key for batch in found for key, *_ in batch)
    with pytest.raises(TooManyBad, match=r"clip1.*\n?.*nothing to follow"):
        batches(root, sources={"chains": "chains"}, max_bad=0)


def test_unfit_samples_are_passed_over_and_count_nowhere(tmp_path: Path) -> None:
    """Without `usable_clips`: four clips in a batch of four out of thirteen samples, and no sample may be bad."""
    root = make_clips(str(tmp_path), num_images=10).root
    catalog = read_catalog(root)
    loader = open_loader(catalog, make_example=make(), batch_size=4, max_bad=0)
    found = plain([example for _ in range(3) for example in next(loader)])
    assert len(found) == 12 and all("clip" in key for key, *_ in found) and loader.bad == 0
    huge = MakeScaleTrackExample(clips=ClipSettings(size=64, min_side=64), sources=ClipSources())
    loader = open_loader(catalog, make_example=huge, batch_size=4, max_bad=0)
    with pytest.raises(UnfitSample, match=r"not one sample is fit to learn from: .*; and \d+ more samples, one after"):
        next(loader)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(stream, "MAX_UNFIT", 3)
        with pytest.raises(UnfitSample, match="and 2 more samples"):
            next(open_loader(catalog, make_example=huge, batch_size=4))


def test_nothing_fits() -> None:
    picture = replace(moving(), squares=moving().squares[:1])
    with pytest.raises(UnfitSample, match=r"drawn: is one picture.*nor do its neighbours give a clip"):
        make()(picture, rng(), lambda: picture)
    nobody = replace(moving(), annotated=frozenset({3}))
    with pytest.raises(UnfitSample, match=r"masklets identify nobody \(objects.chains names"):
        make_clip(nobody, rng(), ClipSettings(), ClipSources())
    found = make()(nobody, rng(), moving)
    assert found.num_frames == 4 and found.num_pairs
