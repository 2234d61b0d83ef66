"""Folders of numbered pictures as clips: which frames, with which indices, masks and identities."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_media import jpeg_bytes, make_davis, make_jpeg, make_labels, make_scene
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.sources.frames import FrameSettings
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import paste_mask
from trackmill.schemas.media import Media, WorkItem

SETTINGS = ReadSettings(frames_per_clip=4)
SIZE = (48, 64)


def make_frames(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> None:
    """Frames of one scene, moving with their place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, name in enumerate(names):
        image = make_scene(*size, seed=3, step=step)[0]
        if name.endswith(".png"):
            Image.fromarray(image).save(folder / name)
        else:
            (folder / name).write_bytes(jpeg_bytes(image))


def claimed(root: Path, source: str = "frames", fps: float = 30.0) -> list[WorkItem]:
    return claim_files(list_inputs([str(root)]), source, SETTINGS, FrameSettings(fps=fps))[0]


def read_all(root: Path, source: str = "frames", fps: float = 30.0) -> list[Media]:
    items = claimed(root, source, fps)
    assert all(item.source == "frames" for item in items)
    reader = open_source("frames", SETTINGS)
    return [reader.read(item) for item in items]


def indices(clips: list[Media]) -> list[list[int]]:
    return [[frame.index for frame in clip.frames] for clip in clips]


def test_davis_gives_every_frame_with_its_masks_and_palette_entries_as_ids(tmp_path):
    labels = make_davis(tmp_path)
    clips = read_all(tmp_path, "auto", fps=24)
    assert indices(clips) == [[0, 1, 2], [3, 4, 5]]
    assert clips[0].annotated and clips[0].fps == 24 and clips[0].num_source_frames == 6
    assert [frame.time_s for frame in clips[1].frames] == [3 / 24, 4 / 24, 5 / 24]
    for frame in [frame for clip in clips for frame in clip.frames]:
        truth = labels[frame.index]
        picture = make_scene(*SIZE, seed=3, step=frame.index)[0]
        assert np.abs(frame.image.astype(int) - picture).mean() < 6, "the frame of another number"
        assert frame.annotations.ids == [1, 2]
        for number, crop in zip(frame.annotations.ids, frame.annotations.masks, strict=True):
            assert np.array_equal(paste_mask(crop, *SIZE), truth == number)
        assert frame.annotations.boxes.tolist()[0] == [3 + frame.index, 5, 20 + frame.index, 15]


def test_masks_are_no_pictures_of_their_own(tmp_path):
    make_davis(tmp_path)
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert {item.source for item in items} == {"frames"} and not unclaimed


def test_frames_without_a_mask_are_not_labelled_and_kept_at_the_label_rate(tmp_path):
    make_davis(tmp_path, num_frames=12, labelled=(0, 3))
    clips = read_all(tmp_path)
    frames = [frame for clip in clips for frame in clip.frames]
    assert [frame.index for frame in frames] == [0, 3, 5, 10]
    assert [frame.annotations and frame.annotations.ids for frame in frames] == [[1, 2], [1, 2], None, None]


def test_a_mask_of_zeros_says_that_there_is_nothing(tmp_path):
    make_davis(tmp_path, num_frames=2)
    make_labels(tmp_path / "Annotations" / "480p" / "bear" / "00001.png", np.zeros(SIZE))
    annotations = [frame.annotations for frame in read_all(tmp_path)[0].frames]
    assert [each.ids for each in annotations] == [[1, 2], []]


def test_255_is_a_region_to_ignore_beside_objects_and_the_object_of_a_black_and_white_mask(tmp_path):
    labels = make_davis(tmp_path, num_frames=2)
    labels[0][44:, 50:] = 255
    make_labels(tmp_path / "Annotations" / "480p" / "bear" / "00000.png", labels[0])
    first = read_all(tmp_path)[0].frames[0].annotations
    assert first.ids == [1, 2] and first.ignore.tolist() == [[50, 44, 64, 48]]
    for i in range(2):
        make_labels(tmp_path / "Annotations" / "480p" / "bear" / f"{i:05d}.png", (labels[i] == 1) * 255, mode="L")
    frames = read_all(tmp_path)[0].frames
    assert [frame.annotations.ids for frame in frames] == [[1], [1]]
    assert all(len(frame.annotations.ignore) == 0 for frame in frames)
    assert np.array_equal(paste_mask(frames[1].annotations.masks[0], *SIZE), labels[1] == 1)


def test_every_fifth_frame_of_youtube_vos(tmp_path):
    names = [f"{i:05d}" for i in range(5, 40, 5)]
    make_frames(tmp_path / "train" / "JPEGImages" / "0043f083b5", [f"{name}.jpg" for name in names])
    for name in names:
        make_labels(tmp_path / "train" / "Annotations" / "0043f083b5" / f"{name}.png", np.full(SIZE, 4))
    clips = read_all(tmp_path, "auto")
    assert indices(clips) == [[0, 5, 10, 15], [20, 25, 30]]
    assert clips[0].num_source_frames == 31 and clips[1].frames[0].time_s == pytest.approx(20 / 30)
    assert all(frame.annotations.ids == [4] for clip in clips for frame in clip.frames)
    assert [item.stride for item in claimed(tmp_path)] == [5, 5]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ([f"frame_{i:04d}.png" for i in range(1, 13)], [0, 5, 10]),  # ffmpeg
        ([f"{i:06d}.jpg" for i in range(100, 112)], [0, 5, 10]),  # a part of a longer video
        ([f"name-{i}.jpeg" for i in range(2, 14)], [0, 5, 10]),  # natural order: 2, 3, ..., 10, not 10, 11, 2
        ([f"{i:03d}.jpg" for i in (0, 1, 2, 3, 9, 10, 11, 20)], [0, 9, 20]),  # gaps
    ],
)
def test_numbers_in_names_count(tmp_path, names, kept):
    make_frames(tmp_path / "clip", names)
    clips = read_all(tmp_path)
    assert [index for clip in indices(clips) for index in clip] == kept
    numbers = [int("".join(filter(str.isdigit, name))) for name in names]
    for frame in [frame for clip in clips for frame in clip.frames]:
        step = numbers.index(numbers[0] + frame.index)
        assert np.abs(frame.image.astype(int) - make_scene(*SIZE, seed=3, step=step)[0]).mean() < 6
    assert not any(clip.annotated for clip in clips)
    assert all(frame.annotations is None for clip in clips for frame in clip.frames)


def test_sequences_that_share_a_folder(tmp_path):
    make_frames(tmp_path, [f"left_{i:04d}.jpg" for i in range(10)] + [f"right_{i:04d}.jpg" for i in range(5)])
    items = claimed(tmp_path, "auto")
    assert [(item.source_id.rsplit("/", 1)[1], item.source) for item in items if item.source == "frames"] == [
        ("left_*.jpg#c000", "frames")
    ], "five pictures are too few to be sure"
    items = claimed(tmp_path)
    assert [item.source_id.rsplit("/", 1)[1] for item in items] == ["left_*.jpg#c000", "right_*.jpg#c000"]
    assert items[1].key.startswith("frames-right-c000-")


def test_the_rate_is_a_setting(tmp_path):
    make_frames(tmp_path, [f"{i:05d}.jpg" for i in range(12)])
    clips = read_all(tmp_path, fps=12)
    assert indices(clips) == [[0, 2, 4], [6, 8, 10]] and clips[0].fps == 12


def test_auto_takes_numbered_pictures_for_a_video_and_says_so(tmp_path, caplog):
    make_frames(tmp_path / "clip", [f"frame_{i:04d}.jpg" for i in range(1, 11)])
    with caplog.at_level(logging.INFO, "trackmill"):
        assert {item.source for item in claimed(tmp_path, "auto")} == {"frames"}
    assert "10 numbered pictures are read as one video of 30 frames a second" in caplog.text
    assert "--source images" in caplog.text
    assert len(claimed(tmp_path, "images")) == 10


def shots(folder: Path, pattern: str, sizes: list[tuple[int, int]]) -> None:
    """Unrelated photographs."""
    for i, (height, width) in enumerate(sizes):
        make_jpeg(folder / pattern.format(i + 1), height, width, seed=i, quality=95 - 10 * (i % 3) ** 2)


@pytest.mark.parametrize(
    ("pattern", "sizes"),
    [
        ("IMG_{:04d}.jpg", [(48, 64)] * 12),  # a camera's names
        ("{:06d}.jpg", [(48, 64), (64, 48)] * 6),  # Pascal VOC, COCO: sizes differ
        ("{:06d}.jpg", [(48, 64)] * 12),  # CelebA: one size, but neighbours have nothing in common
        ("picture_{}.jpg", [(48, 64)] * 12),  # counted by hand
        ("sa_{}.jpg", [(48, 64)] * 12),  # SA-1B without its JSON
        ("frame_{:04d}.jpg", [(48, 64)] * 5),  # too few
    ],
)
def test_auto_leaves_albums_alone(tmp_path, pattern, sizes):
    shots(tmp_path, pattern, sizes)
    assert {item.source for item in claimed(tmp_path, "auto")} == {"images"}


@pytest.mark.parametrize(
    "pattern",
    [
        "DSC{:05d}.JPG",
        "P10{:05d}.JPG",
        "IMG_E{:04d}.JPG",
        "GOPR{:04d}.JPG",
        "IMG_20260131_1200{:02d}.jpg",
        "PXL_20260131_12000{:04d}.jpg",
        "IMG_20260131_120000_BURST{:03d}.jpg",
        "IMG-20260131-WA{:04d}.jpg",
    ],
)
def test_bursts_of_cameras_and_telephones_are_photographs(tmp_path, pattern):
    """Alike as frames are, so that only the names tell."""
    make_frames(tmp_path, [pattern.format(i) for i in range(10, 22)])
    assert {item.source for item in claimed(tmp_path, "auto")} == {"images"}


@pytest.mark.parametrize("pattern", ["img{:05d}.jpg", "0001_{:06d}.png", "20260131_frame_{:04d}.jpg", "{:08d}.jpg"])
def test_what_programs_write_is_a_video_beside_that(tmp_path, pattern):
    make_frames(tmp_path, [pattern.format(i) for i in range(12)])
    assert {item.source for item in claimed(tmp_path, "auto")} == {"frames"}


@pytest.mark.parametrize("folder", ["GT/v", "v/seg", "v/groundtruth", "instances/v", "v/second", "v"])
def test_gray_pictures_of_few_levels_are_no_video_and_gray_frames_are(tmp_path, folder):
    make_frames(tmp_path / "imgs", [f"{i:05d}.jpg" for i in range(10)])
    for i in range(10):
        gray = make_scene(*SIZE, seed=3, step=i)[0].mean(axis=2).astype(np.uint8)
        labels = np.zeros(SIZE, np.uint8)
        labels[5:20, 3 + i : 20 + i] = 255
        for path, pixels in ((tmp_path / "thermal", gray), (tmp_path / folder, labels)):
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / f"{i:05d}.png")
    videos = {item.uri for item in claimed(tmp_path, "auto") if item.source == "frames"}
    assert videos == {str(tmp_path / "imgs"), str(tmp_path / "thermal")}


def test_auto_does_not_take_masks_for_a_video(tmp_path):
    for i in range(10):
        make_labels(tmp_path / "labels_only" / f"{i:05d}.png", np.full(SIZE, i))
    assert {item.source for item in claimed(tmp_path, "auto")} == {"images"}


def test_an_output_begun_with_single_pictures_goes_on_so(tmp_path, caplog):
    make_frames(tmp_path / "old", [f"{i:05d}.jpg" for i in range(10)])
    make_frames(tmp_path / "new", [f"{i:05d}.jpg" for i in range(10)])
    files = list_inputs([str(tmp_path)])
    begun = {file.uri for file in files if "/old/" in file.uri and not file.uri.endswith("00009.jpg")}
    with caplog.at_level(logging.INFO, "trackmill"):
        items, _ = claim_files(files, "auto", SETTINGS, planned=begun)
    sources = {(item.source, "/old" in item.uri.removeprefix(str(tmp_path))) for item in items}
    assert sources == {("images", True), ("frames", False)}
    assert "stay single ones, as this output was begun" in caplog.text
    with pytest.raises(InputError, match="another --output"):
        claim_files(files, "frames", SETTINGS, planned=begun)


def test_mask_whose_frame_is_missing(tmp_path):
    make_davis(tmp_path)
    (tmp_path / "JPEGImages" / "480p" / "bear" / "00002.jpg").unlink()
    with pytest.raises(BadItem, match=r"bear/00002\.jpg: there is a mask of this frame"):
        read_all(tmp_path)


def test_masks_without_any_frame(tmp_path):
    make_davis(tmp_path)
    make_labels(tmp_path / "Annotations" / "480p" / "cow" / "00000.png", np.ones(SIZE))
    items = claimed(tmp_path, "auto")
    assert len(items) == 3
    with pytest.raises(BadItem, match=r"masks in .*Annotations/480p/cow, but .*JPEGImages/480p/cow, are missing"):
        open_source("frames", SETTINGS).read(items[2])


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.ones((10, 10), np.uint8), "is 10 x 10, its frame 48 x 64"),
        (np.stack([np.eye(48, 64), np.zeros(SIZE), np.ones(SIZE)], 2).astype(np.uint8), "mask is in colour"),
    ],
)
def test_mask_that_does_not_fit_is_named(tmp_path, mask, text):
    make_davis(tmp_path)
    Image.fromarray(mask).save(tmp_path / "Annotations" / "480p" / "bear" / "00001.png")
    with pytest.raises(BadItem, match=rf"00001\.png: .*{text}"):
        read_all(tmp_path)


def test_frames_of_two_sizes_and_numbers_that_stand_twice(tmp_path):
    make_frames(tmp_path / "a", ["0.jpg", "5.jpg"])
    make_jpeg(tmp_path / "a" / "10.jpg", 20, 20)
    make_frames(tmp_path / "b", ["1.jpg", "01.jpg"])
    first, second = claimed(tmp_path)
    with pytest.raises(BadItem, match=r"10\.jpg: is 20 x 20, the frames before it 48 x 64"):
        open_source("frames", SETTINGS).read(first)
    with pytest.raises(BadItem, match=r"two pictures have the same number, one of them is 1\.jpg"):
        open_source("frames", SETTINGS).read(second)


@pytest.mark.parametrize("source", ["auto", "frames"])
def test_masks_that_lie_beside_the_input_are_told(tmp_path, source, caplog):
    make_davis(tmp_path)
    clips = read_all(tmp_path / "JPEGImages", source)
    assert not any(clip.annotated for clip in clips)
    assert f"its masks in {tmp_path}/Annotations/480p/bear are no part of the input" in caplog.text
    caplog.clear()
    read_all(tmp_path, source)
    assert "no part of the input" not in caplog.text


def test_masks_of_another_layout_are_no_video(tmp_path, caplog):
    make_frames(tmp_path / "images" / "a", [f"{i:05d}.jpg" for i in range(3)])
    for i in range(3):
        make_labels(tmp_path / "masks" / "a" / f"{i:05d}.png", np.full(SIZE, i))
    assert [Path(item.uri).parent.name for item in claimed(tmp_path)] == ["images"]
    assert "masks/a: left alone" in caplog.text and "Annotations/NAME" in caplog.text
    assert len(claimed(tmp_path / "masks")) == 1, "asked for by name"


@pytest.mark.parametrize(
    ("folder", "sizes"),
    [
        ("JPEGImages", [(48, 64)] * 9),  # Pascal VOC and what is made like it: no folder a video
        ("JPEGImages/train", [(48, 64), (64, 48)] * 5),  # a split, not a video: sizes differ
    ],
)
def test_photographs_with_masks_of_classes_are_no_video(tmp_path, folder, sizes):
    shots(tmp_path / folder, "{:06d}.jpg", sizes)
    for path in sorted((tmp_path / folder).iterdir()):
        target = tmp_path / folder.replace("JPEGImages", "Annotations") / f"{path.stem}.png"
        make_labels(target, np.ones(Image.open(path).size[::-1]))
    assert {item.source for item in claimed(tmp_path, "auto")} == {"images"}


def test_a_test_split_without_masks_is_a_video_by_its_layout(tmp_path):
    make_frames(tmp_path / "JPEGImages" / "480p" / "cow", [f"{i:05d}.jpg" for i in range(3)])
    make_frames(tmp_path / "JPEGImages" / "holiday", [f"IMG_{i:04d}.jpg" for i in range(3)])
    assert [(item.source, item.frames) for item in claimed(tmp_path, "auto")] == [("frames", 1)] + [("images", 1)] * 3


def test_a_word_in_the_name_of_the_whole_input_says_nothing(tmp_path: Path) -> None:
    root = tmp_path / "depth_project"
    for name in ("clip1", "clip2"):
        make_frames(root / name, [f"{number:05d}.jpg" for number in range(9)])
    assert {item.source for item in claimed(root, "auto")} == {"frames"}
    assert {item.source for item in claimed(root / "clip1", "auto")} == {"frames"}
    make_frames(root / "mask" / "clip1", [f"{number:05d}.jpg" for number in range(9)])
    sources = {item.uri.removeprefix(f"{root}/").split("/")[0]: item.source for item in claimed(root, "auto")}
    assert sources == {"clip1": "frames", "clip2": "frames", "mask": "images"}
