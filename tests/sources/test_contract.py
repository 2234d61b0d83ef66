"""The contract that every source keeps: names from headers alone, exact repeatable reads, bad data said to be bad."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trackmill.pipeline.media.pictures as pictures
import trackmill.pipeline.media.videos as videos
from tests.make_media import (
    make_coco,
    make_crowdhuman,
    make_davis,
    make_mot,
    make_pictures,
    make_sa1b_folder,
    make_sa1b_tar,
    make_sav_train,
    make_sav_val,
    make_video,
    pack_tar,
)
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.scaling import scale_annotations
from trackmill.pipeline.sources import SOURCES, open_source, source_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.storage.list_files import list_files
from trackmill.schemas.boxes import box_areas
from trackmill.schemas.keys import KEY_PATTERN
from trackmill.schemas.masks import mask_box
from trackmill.schemas.media import Annotations, Media, WorkItem


def make_videos(folder: Path) -> None:
    make_video(folder / "one.mp4", 30)
    make_video(folder / "two.mkv", 10, rotation=90)


def make_sav_tar(folder: Path) -> None:
    """As published: the files of training videos in a tar."""
    make_sav_train(folder / "sav_train" / "sav_000")
    pack_tar(folder / "sav_000.tar", folder)
    shutil.rmtree(folder / "sav_train")


def make_shard(folder: Path) -> None:
    """A WebDataset shard with a picture and a caption a sample."""
    for path in make_pictures(folder / "made", 3):
        path.with_suffix(".txt").write_text("a caption")
    pack_tar(folder / "shard-000000.tar", folder / "made")
    shutil.rmtree(folder / "made")


def make_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for number, path in enumerate(make_pictures(folder / "made", 3)):
            archive.write(path, path.name, zipfile.ZIP_DEFLATED if number else zipfile.ZIP_STORED)
    shutil.rmtree(folder / "made")


DATA_SETS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    # name: (source, how to make it, a file whose damage must be noticed)
    "pictures": ("images", make_pictures, "picture_1.jpg"),
    "videos": ("videos", make_videos, "one.mp4"),
    "sa1b folder": ("sa1b", make_sa1b_folder, "sa_2.json"),
    "sa1b tar": ("sa1b", lambda folder: make_sa1b_tar(folder / "sa_000000.tar"), "sa_000000.tar"),
    "sav training": ("sav", make_sav_train, "sav_000001_auto.json"),
    "sav tar": ("sav", make_sav_tar, "sav_000.tar"),
    "sav validation": ("sav", make_sav_val, "JPEGImages_24fps/sav_000777/00004.jpg"),
    "webdataset tar": ("webdataset", make_shard, "shard-000000.tar"),
    "webdataset zip": ("webdataset", make_zip, "pictures.zip"),
    "frames": ("frames", make_davis, "JPEGImages/480p/bear/00000.jpg"),
    "crowdhuman": ("crowdhuman", make_crowdhuman, "annotation_val.odgt"),
    "coco": ("coco", make_coco, "annotations/instances_val2017.json"),
    "mot": ("mot", make_mot, "MOT17-99-TEST/img1/000001.jpg"),
}


@pytest.fixture(params=DATA_SETS)
def data_set(request, tmp_path) -> tuple[str, str, Path]:
    """Name of the source, URL of the folder, path of the file to damage."""
    source, make, victim = DATA_SETS[request.param]
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    return source, str(folder), folder / victim


def claim(name: str, url: str, settings: ReadSettings) -> list[WorkItem]:
    found = open_source(name, settings).claim(list_files(url))
    return sorted(found.items, key=lambda item: item.source_id)


def read_all(name: str, items: list[WorkItem], settings: ReadSettings) -> list[Media]:
    source = open_source(name, settings)
    return [source.read(item) for item in items]


def same(a: Media, b: Media) -> bool:
    def plain(media: Media) -> dict:
        values = dataclasses.asdict(media)
        return json.loads(json.dumps(values, default=lambda value: getattr(value, "tolist", value.__repr__)()))

    return plain(a) == plain(b)


def test_every_source_is_here():
    assert {source for source, _, _ in DATA_SETS.values()} == set(SOURCES)
    for name, entry in SOURCES.items():
        cls = source_class(name)
        assert cls.name == name
        assert cls.version >= 1
        assert cls.looked_for and entry.summary, "what the errors and the help say"
        assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in cls.suffixes)


def test_claim_is_deterministic_and_ids_are_unique(data_set, settings):
    name, url, _ = data_set
    items = claim(name, url, settings)
    assert items and items == claim(name, url, settings)
    backwards = open_source(name, settings).claim(list_files(url)[::-1])
    assert sorted(backwards.items, key=lambda item: item.source_id) == items
    assert len({item.source_id for item in items}) == len({item.key for item in items}) == len(items)
    assert all(KEY_PATTERN.match(item.key) and item.source == name for item in items)
    assert backwards.used == {file.uri for file in list_files(url)}


def test_claim_decodes_nothing(data_set, settings, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pixel was decoded while planning")

    monkeypatch.setattr(pictures.Image, "open", refuse)
    monkeypatch.setattr(videos.VideoReader, "__init__", refuse)
    assert claim(*data_set[:2], settings)


def test_items_survive_being_written_down(data_set, settings):
    name, url, _ = data_set
    for item in claim(name, url, settings):
        copy = WorkItem(**json.loads(json.dumps(dataclasses.asdict(item))))
        assert copy == item
        assert same(open_source(name, settings).read(copy), open_source(name, settings).read(item))


def test_frames_are_what_the_plan_said(data_set, settings):
    name, url, _ = data_set
    items = claim(name, url, settings)
    for item, media in zip(items, read_all(name, items, settings), strict=True):
        assert len(media.frames) == item.frames
        assert media.kind == ("image" if name in ("images", "sa1b", "webdataset", "crowdhuman", "coco") else "clip")
        shapes = {frame.image.shape for frame in media.frames}
        assert len(shapes) == 1 and max(*shapes) <= settings.longest_side
        assert all(frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous for frame in media.frames)
        assert all(frame.encoded is None for frame in media.frames)  # all were scaled
        if media.kind == "clip":
            expected = [item.first_frame + i * item.stride for i in range(item.frames)]
            assert [frame.index for frame in media.frames] == expected
            assert media.num_source_frames > expected[-1] and media.fps > 0
            times = [frame.time_s for frame in media.frames]
            assert times == sorted(set(times))
        assert len(media.sha256) == 64 and media.num_bytes > 0 and media.license


def test_annotations_lie_in_the_stored_frame(data_set, settings):
    name, url, _ = data_set
    seen = 0
    for media in read_all(name, claim(name, url, settings), settings):
        assert media.annotated == source_class(name).annotated
        for frame in media.frames:
            if not media.annotated:
                assert frame.annotations is None
                continue
            seen += len(frame.annotations.ids)
            check_annotations(frame.annotations, *frame.image.shape[:2])
    assert bool(seen) == source_class(name).annotated


def test_annotations_are_scaled_with_their_frame(data_set, settings):
    """One system of coordinates: read at full size and scaled is what reading at the stored size gives."""
    name, url, _ = data_set
    items = claim(name, url, settings)
    full_size = read_all(name, items, settings.model_copy(update={"longest_side": 16384}))
    for full, stored in zip(full_size, read_all(name, items, settings), strict=True):
        original = (full.original_height, full.original_width)
        assert original == (stored.original_height, stored.original_width) == full.frames[0].image.shape[:2]
        for before, after in zip(full.frames, stored.frames, strict=True):
            assert after.image.shape[0] < before.image.shape[0], "too small a picture would prove nothing"
            if after.annotations is not None:
                expected = scale_annotations(before.annotations, original, after.image.shape[:2])
                assert repr(after.annotations) == repr(expected)


def check_annotations(annotations: Annotations, height: int, width: int) -> None:
    count = len(annotations.ids)
    assert len(annotations.boxes) == len(annotations.scores) == len(annotations.masks) == count
    assert len(set(annotations.ids)) == count and all(0 <= score <= 1 for score in annotations.scores)
    for boxes in (annotations.boxes, annotations.ignore):
        assert boxes.dtype == np.float32 and boxes.shape[1:] == (4,)
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all() and (box_areas(boxes) > 0).all()
    for mask in annotations.masks:
        if mask is not None:
            assert mask_box(mask)[2] <= width and mask_box(mask)[3] <= height


def test_order_of_reading_makes_no_difference(data_set, settings):
    name, url, _ = data_set
    items = claim(name, url, settings)
    forwards = read_all(name, items, settings)
    backwards = read_all(name, items[::-1], settings)[::-1]
    alone = [open_source(name, settings).read(item) for item in items]
    for a, b, c in zip(forwards, backwards, alone, strict=True):
        assert same(a, b) and same(a, c)


def test_memory_gives_what_the_disk_gives(data_set, settings, to_memory):
    name, url, _ = data_set
    remote = to_memory(Path(url))
    here, there = claim(name, url, settings), claim(name, remote, settings)
    for a, b in zip(read_all(name, here, settings), read_all(name, there, settings), strict=True):
        assert same(a, b)
    assert all(item.uri.startswith("memory://") for item in there)


@pytest.mark.parametrize("damage", ["empty", "noise", "half"])
def test_damage_is_bad_data(data_set, settings, damage):
    name, url, victim = data_set
    whole = victim.read_bytes()
    noise = np.random.default_rng(0).bytes(len(whole))
    victim.write_bytes({"empty": b"", "noise": noise, "half": whole[: len(whole) // 2]}[damage])
    items = claim(name, url, settings)
    source = open_source(name, settings)
    errors = []
    for item in items:
        try:
            source.read(item)
        except BadItem as error:
            errors.append(str(error))
    assert errors and all(victim.name in text for text in errors)


def test_file_that_vanished_after_planning(data_set, settings):
    name, url, victim = data_set
    items = claim(name, url, settings)
    victim.unlink()
    source = open_source(name, settings)
    errors = []
    for item in items:
        try:
            source.read(item)
        except (BadItem, OSError) as error:
            errors.append(str(error))
    assert errors and all(victim.name in text for text in errors)


def test_limits_are_kept(data_set, settings):
    name, url, _ = data_set
    items = claim(name, url, settings)
    for limits in ({"max_pixels": 100}, {"max_item_bytes": 100}):
        source = open_source(name, settings.model_copy(update=limits))
        for item in items:
            with pytest.raises(BadItem, match=f"read.{next(iter(limits))}"):
                source.read(item)
