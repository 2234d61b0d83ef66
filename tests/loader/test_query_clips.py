"""Clips for tracking by query: which frames, one draw for all of them, boxes that follow the pixels, who is who."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.loader.examples import open_loader
from tests.loader.make_clips import COLOURS, GREY, DrawnClip, make_clips
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.clips.framing import Framing, draw_framing
from trackmill.pipeline.loader.clips.interval import choose_at_interval
from trackmill.pipeline.loader.clips.query_clip import make_query_clip
from trackmill.pipeline.loader.clips.query_example import QueryExample
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
from trackmill.pipeline.loader.clips.shifts import draw_shifts
from trackmill.pipeline.loader.clips.usable import usable_queries
from trackmill.pipeline.loader.contract import UnfitSample
from trackmill.pipeline.loader.packing import pack, unpack
from trackmill.pipeline.tasks.ipmot.batch import join_queries
from trackmill.pipeline.tasks.ipmot.examples import MakeQueryExample
from trackmill.schemas.config import ConfigError, build
from trackmill.schemas.keys import NO_KEY, identity_key

PLAIN: dict[str, Any] = {"flip": 0, "resize": (), "crop_share": 0, "hue": 0, "saturation": 0, "value": 0}
"""Frames as they are."""
SMALL: dict[str, Any] = {"resize": (96, 128, 192), "before_crop": (100, 140), "crop": (70, 120), "longest": 256}
"""The whole augmentation, of small frames."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def walking(num_frames: int = 24, height: int = 160, width: int = 240) -> DrawnClip:
    """One square comes in from the left, one goes out on the right, one stands, one is there in the first frames."""
    return DrawnClip(
        squares=tuple(
            (
                (-30 + 4 * t, 20, 20 + 4 * t, 70),
                (160 + 5 * t, 80, 210 + 5 * t, 140) if 160 + 5 * t < width else None,
                (90, 90, 140, 150),
                (180, 10, 225, 60) if t < 3 else None,
            )
            for t in range(num_frames)
        ),
        height=height,
        width=width,
    )


def example_of(
    drawn: DrawnClip, seed: int = 0, count: int = 3, sources: QuerySources | None = None, **values: Any
) -> QueryExample:
    return make_query_clip(drawn, rng(seed), QueryClipSettings(**values), sources or QuerySources(), count)


def colours_in(image: NDArray[np.uint8]) -> dict[int, NDArray[np.float64]]:
    """Where pixels look more like a colour than like anything else: a box for each colour that there is."""
    every = np.array([*COLOURS, (GREY,) * 3], np.float32)
    # |pixel - colour|^2 without |pixel|^2, which is the same for all colours
    distance = (every**2).sum(axis=1) - 2 * (image.reshape(-1, 3).astype(np.float32) @ every.T)
    nearest = distance.argmin(axis=1).reshape(image.shape[:2])
    found = {}
    for colour in np.unique(nearest[nearest < len(COLOURS)]).tolist():
        rows, columns = np.nonzero(nearest == colour)
        found[colour] = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
    return found


# Which frames


@pytest.mark.parametrize(
    ("indices", "count", "interval", "expected"),
    [
        (range(100), 2, (1, 10), set(range(1, 11))),
        (range(100), 4, (1, 10), set(range(1, 11))),
        (range(100), 3, (3, 5), {3, 4, 5}),
        (range(16), 4, (1, 10), {1, 2, 3, 4, 5}),  # shortened to what fits: (16 - 1) // 3
        (range(7, 407, 4), 3, (1, 10), {4, 8}),  # every fourth frame is stored
        (range(0, 400, 20), 3, (1, 10), {20}),  # neighbours are already further apart
        (range(0, 400, 4), 3, (6, 7), {8}),  # nothing in between is stored
    ],
)
def test_one_interval_in_frames_of_the_video(
    indices: range, count: int, interval: tuple[int, int], expected: set[int]
) -> None:
    numbers, counted, starts = np.array(indices), Counter[int](), set[int]()
    for seed in range(400):
        places = choose_at_interval(numbers, count, interval, rng(seed))
        steps = set(np.diff(numbers[places]).tolist())
        assert len(places) == count and len(steps) == 1, "one interval a clip"
        counted.update(steps)
        starts.add(int(places[0]))
    assert set(counted) == expected
    unshortened = [counted[step] for step in sorted(expected)][: -1 if len(indices) == 16 else None]
    assert max(unshortened) < 2.5 * min(unshortened), "about equally often"
    assert 0 in starts and len(starts) > 0.5 * (len(indices) - (count - 1) * max(expected) // min(np.diff(numbers)))


def test_a_sample_with_fewer_frames_gives_what_it_has() -> None:
    assert choose_at_interval(np.array([3, 9]), 4, (1, 10), rng()).tolist() == [0, 1]
    assert {int(choose_at_interval(np.arange(5), 1, (1, 10), rng(seed))[0]) for seed in range(60)} == set(range(5))
    two = replace(walking(), squares=walking().squares[:2])
    assert example_of(two, count=4, **PLAIN).indices.tolist() == [0, 4]


def test_only_frames_of_which_something_is_known_are_used() -> None:
    """A frame without annotation does not say that nobody is there; one that is annotated with nobody does."""
    some = replace(walking(), annotated=frozenset({2, 3, 9, 10, 17}))
    for seed in range(20):
        assert set(example_of(some, seed, **PLAIN).frames.tolist()) <= {2, 3, 9, 10, 17}
    with pytest.raises(UnfitSample, match="drawn: no annotation says who is in its frames"):
        example_of(replace(walking(), annotated=frozenset()))
    empty = replace(walking(), squares=((None,),) * 12)
    nobody = example_of(empty, **PLAIN)
    for each in (nobody, unpack(pack(nobody))):  # as it is, and as a loader's worker passes it on
        assert [boxes.shape for boxes in each.boxes] == [(0, 4)] * 3 and join_queries([each]).num_boxes == 0


# One draw for all frames


def test_pixels_go_where_the_coordinates_say() -> None:
    """Each pixel holds its place in the stored frame, so every output pixel says where it was taken from."""
    height, width = 120, 200
    met = Counter[int]()
    for seed in range(60):
        settings = QueryClipSettings(**{**SMALL, "resize": (30, 40, 60) if seed % 2 else (128, 192)})
        framing = draw_framing(height, width, settings, rng(seed))
        for eighths in (8, 5, 4, 3):
            if eighths < 8 and 8 * framing.enough(height, width)[0] > eighths * height:
                continue  # no frame is decoded so small
            met[eighths] += 1
            ramp = np.zeros((height * eighths // 8, width * eighths // 8, 3), np.float32)
            ramp[..., 0] = (np.arange(width * eighths // 8) + 0.5) * 8 / eighths - 0.5
            ramp[..., 1] = ((np.arange(height * eighths // 8) + 0.5) * 8 / eighths - 0.5)[:, None]
            out = np.empty((*framing.size, 3), np.float32)
            framing.pixels(ramp, height, out)  # type: ignore[arg-type]  # floats, for an exact comparison
            x = framing.corner[0] + (np.arange(framing.size[1]) + 0.5) * framing.part[1] / framing.size[1] - 0.5
            y = framing.corner[1] + (np.arange(framing.size[0]) + 0.5) * framing.part[0] / framing.size[0] - 0.5
            inner = (slice(3, -3), slice(3, -3))  # at the border the last pixel is repeated
            across = out[..., 0][:, ::-1] if framing.flip else out[..., 0]
            # OpenCV counts in 1/32 of a pixel where it interpolates.
            most = 0.1 * max(1, framing.part[0] / framing.size[0], framing.part[1] / framing.size[1])
            assert np.abs(across - x)[inner].max() < most and np.abs(out[..., 1] - y[:, None])[inner].max() < most
    assert min(met.values()) > 5 and len(met) == 4


@pytest.mark.parametrize("height", [160, 640])  # at the second, frames are decoded at a part of their size
def test_boxes_follow_the_pixels(height: int) -> None:
    scale = height // 160
    clip = walking()
    clip = replace(
        clip,
        squares=tuple(tuple(box and tuple(scale * edge for edge in box) for box in boxes) for boxes in clip.squares),
        height=height,
        width=height * 3 // 2,
    )
    seen, flips, sizes, parts = 0, set[bool](), set[tuple[int, ...]](), set[bool]()
    for seed in range(16):
        example = example_of(clip, seed, hue=0, saturation=0, value=0, **SMALL)
        size = example.images.shape[1:3]
        sizes.add(size)
        assert max(size) <= 256 and len(set(np.diff(example.frames))) == 1
        left_of = []
        for image, frame, boxes, ids in zip(example.images, example.frames, example.boxes, example.ids):
            stored = [place for place, box in enumerate(clip.squares[frame]) if box]
            names = identity_of(example, clip)
            there = colours_in(image)
            for box, who in zip(boxes, ids.tolist()):
                colour = names[who]
                clipped = np.clip(box, 0, [size[1], size[0]] * 2)
                if (clipped[2:] - clipped[:2]).min() > 4:
                    assert np.abs(there[colour] - clipped).max() < 2.5, (seed, frame, colour)
                    seen += 1
                assert colour in stored
            for colour in set(stored) - {names[who] for who in ids.tolist()}:
                assert colour not in there, "who was left out is not in view"
            drawn = {names[who]: box for box, who in zip(boxes, ids.tolist())}
            if {0, 2} <= drawn.keys() and frame < 20:
                left_of.append(bool(drawn[0][0] < drawn[2][0]))
            whole = dict(zip(stored, clip.objects(frame)[0]))
            for colour, box in drawn.items():  # amodal: the whole box, whatever is in view
                across, down = (box[2:] - box[:2]) / (whole[colour][2:] - whole[colour][:2])
                assert 0.8 < across / down < 1.25
            parts.add(bool(size[0] * 3 != size[1] * 2))
        flips.update(left_of)
        assert len(set(left_of)) <= 1, "all frames are mirrored, or none"
    assert seen > 60 and flips == {True, False} and len(sizes) > 6 and parts == {True, False}


def identity_of(example: QueryExample, clip: DrawnClip) -> dict[int, int]:
    """Which square each id of an example is, by its key."""
    known = {identity_key(clip.source, clip.video, 70 + colour): colour for colour in range(len(COLOURS))}
    pairs = {
        (who, known[key])
        for ids, keys in zip(example.ids, example.keys)
        for who, key in zip(ids.tolist(), keys.tolist())
    }
    assert len({who for who, _ in pairs}) == len({colour for _, colour in pairs}) == len(pairs)
    assert sorted(who for who, _ in pairs) == list(range(len(pairs)))
    return dict(pairs)


def test_frames_as_they_are() -> None:
    clip = walking()
    example = example_of(clip, 3, **PLAIN)
    for image, frame, boxes in zip(example.images, example.frames.tolist(), example.boxes):
        assert np.array_equal(image, clip.image(frame))
        objects = clip.objects(frame)
        assert objects is not None and boxes.tolist() == [box for box in objects[0].tolist() if box[2] > 0]
    cut = example_of(clip, 3, **{**PLAIN, "clip": True})
    for boxes, whole in zip(cut.boxes, example.boxes):
        assert np.array_equal(boxes, np.clip(whole, 0, [240, 160, 240, 160]))
    assert any((boxes < 0).any() for boxes in example_of(clip, 1, **{**PLAIN, "interval": (1, 1)}, count=23).boxes)


def test_a_fixed_size() -> None:
    for seed in range(8):
        example = example_of(walking(), seed, **{**PLAIN, "resize": (80,)})
        assert example.images.shape == (3, 80, 120, 3)
    assert example_of(walking(), **{**PLAIN, "longest": 60}).images.shape == (3, 40, 60, 3)


def test_what_is_out_of_view_is_dropped_and_what_touches_the_view_is_not() -> None:
    framing = Framing(corner=(10, 20), part=(40, 60), size=(80, 120), flip=False)
    boxes = np.array(
        [
            (0, 0, 200, 200),  # around all of it
            (0, 30, 10.5, 40),  # half a pixel of it
            (0, 30, 10, 40),  # ends where the view begins
            (70, 30, 90, 40),  # begins where it ends
            (20, 30, 20, 40),  # no width
            (-500, 59, 20, 300),  # a corner
        ],
        np.float32,
    )
    placed, in_view = framing.boxes(boxes)
    assert in_view.tolist() == [True, True, False, False, False, True]
    assert placed[0].tolist() == [-20, -40, 380, 360] and placed[1].tolist() == [-20, 20, 1, 40]
    mirrored, same = replace(framing, flip=True).boxes(boxes)
    assert (same == in_view).all() and mirrored[0].tolist() == [-260, -40, 140, 360]


def test_sides_are_drawn_as_in_detr() -> None:
    """Of frames of 1080 x 1920: the longer side decides for the larger ones."""
    settings = QueryClipSettings(crop_share=0)
    sizes = {draw_framing(1080, 1920, settings, rng(seed)).size for seed in range(300)}
    expected = {(side, round(side * 16 / 9)) for side in range(608, 865, 32)} | {(864, 1536)}
    assert sizes == expected
    cropped = [draw_framing(1080, 1920, QueryClipSettings(crop_share=1), rng(seed)) for seed in range(300)]
    for each in cropped:
        assert each.corner[0] + each.part[1] <= 1920 and each.corner[1] + each.part[0] <= 1080
        assert min(each.size) in range(608, 993, 32) or max(each.size) == 1536
        # Before the crop the shorter side has 400, 500 or 600 pixels; of it 384 to 600 are kept, at most all.
        possible = [all(384 - 1 <= side * before / 1080 <= 600 + 1 for side in each.part) for before in (400, 500, 600)]
        assert any(possible)
    small = draw_framing(100, 90, QueryClipSettings(crop_share=1, before_crop=(100,)), rng())
    assert small.part == (100, 90), "a side that is smaller than the crop stays whole"
    assert 100 < sum(each.flip for each in cropped) < 200


def test_colours_change_alike_in_all_frames() -> None:
    clip = replace(walking(), squares=((None,),) * 12)
    means = [example_of(clip, seed, **{**PLAIN, "value": 60}).images.mean(axis=(1, 2, 3)) for seed in range(8)]
    assert all(np.ptp(each) < 0.5 for each in means) and np.ptp([each[0] for each in means]) > 20


# Pictures


def test_a_picture_becomes_a_view_that_moves() -> None:
    picture = replace(walking(), squares=walking().squares[1:2])
    moves = set[tuple[float, float]]()
    for seed in range(30):
        example = example_of(picture, seed, count=4, **{**PLAIN, "shift": 12})
        assert example.static and example.num_frames == 4 and example.frames.tolist() == [0] * 4
        assert all((keys == NO_KEY).all() for keys in example.keys)
        by_id: dict[int, list[NDArray[np.float32]]] = {}
        for image, boxes, ids in zip(example.images, example.boxes, example.ids):
            assert len(set(ids.tolist())) == len(ids)
            for box, who in zip(boxes, ids.tolist()):
                by_id.setdefault(who, []).append(box)
            size = [image.shape[1], image.shape[0]] * 2
            there = colours_in(image)
            for colour, box in enumerate(boxes) if len(boxes) == 4 else ():
                assert np.abs(there[colour] - np.clip(box, 0, size)).max() <= 1
        steps = {tuple((b - a).tolist()) for boxes in by_id.values() for a, b in itertools.pairwise(boxes)}
        assert len(steps) <= 1, "all move alike, and steadily"
        moves |= {step[:2] for step in steps}
        assert not (example.images == 0).all(axis=3).any(), "nothing comes in that was not in the picture"
    assert max(abs(x) for x, _ in moves) <= 12 and len({x for x, _ in moves}) > 8
    assert {np.sign(x) for x, _ in moves} >= {-1, 1}


def test_views_of_small_pictures_keep_half_of_them() -> None:
    for seed in range(100):
        (height, width), corners = draw_shifts(60, 900, 4, 50, rng(seed))
        assert height >= 30 and 900 - 150 <= width <= 900
        assert corners.min(axis=0).tolist() == [0, 0]
        assert (corners.max(axis=0) == [900 - width, 60 - height]).all()
    assert draw_shifts(60, 90, 1, 50, rng())[0] == (60, 90)


def test_the_boxes_of_a_picture_may_be_made_identities() -> None:
    picture = replace(walking(), squares=walking().squares[1:2])
    first, second = (example_of(picture, seed, sources=QuerySources(static_identities=True)) for seed in (1, 2))
    everybody = [set(np.concatenate(example.keys).tolist()) for example in (first, second)]
    assert NO_KEY not in everybody[0] | everybody[1] and everybody[0] & everybody[1]
    other = example_of(replace(picture, key="other"), 1, sources=QuerySources(static_identities=True))
    assert not everybody[0] & set(np.concatenate(other.keys).tolist())


# Who is who


def test_two_samples_of_a_video_have_the_same_keys() -> None:
    def everybody(clip: DrawnClip, sources: QuerySources | None = None) -> set[int]:
        return set(np.concatenate(example_of(clip, 2, sources=sources, **PLAIN).keys).tolist())

    first = walking()
    later = replace(first, key="later", squares=tuple((a, None, c, None) for a, _, c, _ in first.squares))
    assert everybody(later) == {identity_key("videos", first.video, 70), identity_key("videos", first.video, 72)}
    assert everybody(later) < everybody(first)
    assert not everybody(replace(first, origin="videos/other.mp4")) & everybody(first)
    assert not everybody(replace(first, source="mot")) & everybody(first)
    # Chains are numbered in their sample: another sample's chain 0 is somebody else.
    rows = {"box": [(90, 90, 140, 150)], "chain": [0]}
    chains = QuerySources(masklets=False, chains="chains")
    linked = [replace(each, sidecars={"chains": dict.fromkeys(range(24), rows)}) for each in (first, later)]
    assert len(everybody(linked[0], chains)) == 1 and everybody(linked[0], chains) != everybody(linked[1], chains)


def test_whoever_is_unknown_is_somebody_of_one_frame() -> None:
    """A sidecar of somebody's own may hold boxes that are in no chain: people, but nobody knows who."""
    rows = {"box": [(90, 90, 140, 150), (10, 10, 40, 60), (60, 10, 80, 50)], "chain": [4, -1, -1]}
    clip = replace(walking(), sidecars={"chains": dict.fromkeys(range(24), rows)})
    chains = QuerySources(masklets=False, chains="chains")
    example = example_of(clip, sources=chains, **PLAIN)
    assert [len(ids) for ids in example.ids] == [3] * 3
    everybody = np.concatenate(example.ids).tolist()
    assert Counter(Counter(everybody).values()) == {3: 1, 1: 6} and sorted(set(everybody)) == list(range(7))
    assert all((keys >= 0).tolist() == [True, False, False] for keys in example.keys)


# Data sets, epochs


def maker(**values: Any) -> MakeQueryExample:
    clips = {"frames": ((0, 2), (1, 3), (3, 4)), "resize": (48,), "before_crop": (60,), "crop": (40, 56), **values}
    return MakeQueryExample(clips=QueryClipSettings(**clips), sources=QuerySources())


def rows_of(example: QueryExample) -> tuple[Any, ...]:
    return example.boxes, example.ids, example.keys


def plain(batch: list[QueryExample]) -> list[Any]:
    return [
        (each.key, each.num_frames, each.images.tobytes(), *(np.concatenate(rows).tolist() for rows in rows_of(each)))
        for each in batch
    ]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Four pictures and three clips."""
    return read_catalog(make_clips(str(tmp_path_factory.mktemp("mixed") / "data"), num_frames=6).root)


@pytest.fixture(scope="module")
def undisturbed(mixed: Catalog) -> list[list[Any]]:
    """Ten batches of four, two of which are an epoch of the seven samples."""
    loader = open_loader(mixed, 4, streams=4, make_example=maker())
    return [plain(next(loader)) for _ in range(10)]


def test_clips_grow_by_epoch(undisturbed: list[list[Any]]) -> None:
    lengths = [{length for _, length, *_ in batch} for batch in undisturbed]
    assert lengths == [{2}, {2}, {3}, {3}, {3}, {3}, {4}, {4}, {4}, {4}]
    kinds = Counter(key.split("-")[0] for batch in undisturbed for key, *_ in batch)
    assert set(kinds) == {"images", "videos"}, "pictures and clips in one run"


@pytest.mark.parametrize(
    ("world", "workers", "done"), [pytest.param(1, 2, 5, marks=pytest.mark.slow), (2, 0, 1), (2, 1, 6), (4, 0, 3)]
)
def test_they_grow_alike_after_a_break_with_other_ranks_and_workers(
    mixed: Catalog, undisturbed: list[list[Any]], world: int, workers: int, done: int
) -> None:
    for rank in range(world) if not workers else (world - 1,):
        loader = open_loader(
            mixed, 4, streams=4, world=world, rank=rank, workers=workers, batches_done=done, make_example=maker()
        )
        own = slice(rank * 4 // world, (rank + 1) * 4 // world)
        assert [plain(next(loader)) for _ in range(10 - done)] == [batch[own] for batch in undisturbed[done:]]
        loader.close()


def test_a_batch_keeps_clips_of_different_sizes_apart(mixed: Catalog) -> None:
    loader = open_loader(mixed, 4, make_example=maker(resize=(40, 48, 64)), collate=join_queries)
    sizes = set[tuple[int, ...]]()
    for _ in range(4):
        batch = next(loader)
        assert len(batch.clips) == 4
        for clip in batch.clips:
            sizes.add(tuple(clip.images.shape[2:]))
            frames = len(clip.images)
            assert str(clip.images.dtype) == "torch.uint8" and clip.images.shape[1] == 3
            assert len(clip.boxes) == len(clip.ids) == len(clip.keys) == frames
            assert clip.static == clip.sample.startswith("images")
            for boxes, ids, keys in zip(clip.boxes, clip.ids, clip.keys):
                assert boxes.shape == (len(ids), 4) and keys.shape == ids.shape and boxes.dtype.is_floating_point
                assert (keys < 0).all() if clip.static else (keys >= 0).all()
        assert batch.num_boxes == sum(len(ids) for clip in batch.clips for ids in clip.ids)
    assert len(sizes) > 3


def test_an_epoch_has_a_clip_for_every_frame_of_a_video_and_one_for_a_picture(mixed: Catalog) -> None:
    catalog = usable_queries(mixed, QuerySources(), QueryClipSettings())
    loader = open_loader(catalog, 1, make_example=maker())
    epoch = Counter(next(loader)[0].key for _ in range(len(catalog)))
    assert sorted(epoch.values()) == [1] * 4 + [6] * 3
    assert len(usable_queries(mixed, QuerySources(), QueryClipSettings(per_frame=False))) == 7


def test_samples_that_are_too_short_for_the_longest_clips_are_said(mixed: Catalog) -> None:
    long = QueryClipSettings(frames=((0, 2), (9, 8)), interval=(1, 5))
    with pytest.warns(UserWarning, match=r"asks for 8 frames, but .* more than 6 .*frames_per_clip = 36"):
        usable_queries(mixed, QuerySources(), long)


def test_data_sets_in_which_nobody_is_known_are_refused(tmp_path: Path) -> None:
    root = make_clips(str(tmp_path), num_clips=0).root
    pictures = read_catalog(root)
    assert len(usable_queries(pictures, QuerySources(), QueryClipSettings())) == 4
    nobody = replace(pictures, annotated=np.zeros(4, np.bool_))
    with pytest.raises(ConfigError, match=r"nobody is annotated in any of 4 pictures: mine data sets"):
        usable_queries(nobody, QuerySources(), QueryClipSettings())
    videos = read_catalog(make_clips(str(tmp_path / "videos"), num_clips=1).root)
    videos = replace(videos, annotated=np.zeros(len(videos), np.bool_))
    with pytest.raises(ConfigError, match=r"so nobody is known from frame to frame: .* links boxes"):
        usable_queries(videos, QuerySources(), QueryClipSettings())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"frames": []}, r"frames: should begin with epoch 0"),
        ({"frames": [[1, 2]]}, r"frames: should begin with epoch 0"),
        ({"frames": [[0, 2], [5, 3], [5, 4]]}, r"frames: epochs should rise"),
        ({"frames": [[0, 0]]}, r"frames.0.1: .*greater than or equal to 1"),
        ({"frames": [[0, 2, 3]]}, r"frames.0"),
        ({"interval": [5, 2]}, r"interval = \[5, 2\]: the first should be the smaller"),
        ({"crop": [600, 384]}, r"crop = \[600, 384\]"),
        ({"resize": [8]}, r"resize.0: "),
        ({"frame": [[0, 2]]}, r"did you mean 'frames'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(QueryClipSettings, values, "clips")


def test_clip_lengths_as_a_recipe_writes_them() -> None:
    clips = build(QueryClipSettings, {"frames": [[0, 2], [60, 3], [100, 4]]}, "clips")
    assert [clips.frames_at(epoch) for epoch in (0, 59, 60, 99, 100, 10**6)] == [2, 2, 3, 3, 4, 4]
