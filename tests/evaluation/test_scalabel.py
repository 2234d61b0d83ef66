"""Scalabel JSON: what is read, and the one line each fault gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.evaluation.make_scalabel import make_scalabel, to_rle
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.readers.scalabel import LabelledVideo, read_scalabel
from trackmill.pipeline.formats.errors import BadTracks

CATEGORIES = {"car": 4, "van": 4, "rider": 2}
REAL = DATA / "bdd100k" / "track" / "labels"


def write(tmp_path: Path, content: Any, name: str = "x.json") -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return str(path)


def read(tmp_path: Path, content: Any, **more: Any) -> dict[str, LabelledVideo]:
    return read_scalabel(write(tmp_path, content), CATEGORIES, **{"side": "gt", **more})


def label(**changes: Any) -> dict[str, Any]:
    made = {"id": "7", "category": "car", "box2d": {"y2": 8, "x1": 1, "y1": 2.5, "x2": 4}} | changes
    return {key: value for key, value in made.items() if value is not ...}


def frame(*labels: Any, **changes: Any) -> dict[str, Any]:
    made = {"name": "a.jpg", "videoName": "v", "frameIndex": 0, "labels": list(labels)} | changes
    return {key: value for key, value in made.items() if value is not ...}


def test_columns(tmp_path: Path):
    frames = [
        frame(label(id="12", category="van", score=0.5), frameIndex=9, name="late.jpg"),
        frame(
            label(attributes={"crowd": True}), label(id=3, attributes={"ignored": 1, "crowd": "False"}), frameIndex=4
        ),
        frame(frameIndex=6, labels=None),
        frame(frameIndex=7, labels=...),
    ]
    video = read(tmp_path, frames)["v"]
    assert video.frame_indices.tolist() == [4, 6, 7, 9]
    assert video.frame_names == ("v/a.jpg", "v/a.jpg", "v/a.jpg", "v/late.jpg")
    assert video.tracks.frames.tolist() == [0, 0, 3]
    assert video.tracks.ids.tolist() == [7, 3, 12]
    assert video.tracks.labels.tolist() == [4, 4, 4]
    assert video.tracks.boxes[0].tolist() == [1, 2.5, 4, 8]
    assert video.tracks.scores.tolist() == [1, 1, 0.5]
    assert video.crowd.tolist() == [True, False, False]
    assert video.ignored.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (["07", "8", "7"], [7, 8, 7]),  # all digits: numbers as they are
        (["b", "a", "10"], [3, 2, 1]),  # else by rank among the sorted texts
        ([5, "5", "x"], [1, 1, 2]),  # 5 and "5" are the same id
        (["9" * 30, "0" + "9" * 30, "1"], [2, 2, 1]),  # digits too long for a number
        ([-1, 2, 3], [1, 2, 3]),
    ],
)
def test_ids(tmp_path: Path, ids: list[Any], numbers: list[int]):
    frames = [frame(label(id=identity), frameIndex=i) for i, identity in enumerate(ids)]
    assert read(tmp_path, frames)["v"].tracks.ids.tolist() == numbers


def test_videos_may_be_spread_over_files(tmp_path: Path):
    gt, _ = make_scalabel(0)
    categories = dict.fromkeys(("pedestrian", "rider", "car", "truck", "bus", "motorcycle", "bicycle", "person"), 1)
    categories |= {"other vehicle": 9, "trailer": 8}
    (tmp_path / "folder").mkdir()
    for part in range(3):
        write(tmp_path / "folder", {"frames": gt[part::3]}, f"{part}.json")
    together = read_scalabel(str(tmp_path / "folder"), categories, side="gt")
    alone = read_scalabel(write(tmp_path, gt), categories, side="gt")
    assert list(together) == list(alone) == ["v0", "v1"]
    for name, video in together.items():
        assert video.frame_indices.tolist() == alone[name].frame_indices.tolist()
        assert np.array_equal(video.tracks.boxes, alone[name].tracks.boxes)
        assert np.array_equal(video.tracks.ids, alone[name].tracks.ids)


def test_crowds_may_share_an_id_in_the_ground_truth_only(tmp_path: Path):
    crowds = [frame(label(), label(attributes={"crowd": True}), label(attributes={"crowd": True}))]
    assert len(read(tmp_path, crowds)["v"].tracks) == 3
    with pytest.raises(BadTracks, match=r"labels\[1\]\.id: '7' is twice"):
        read(tmp_path, crowds, side="results")


def test_masks(tmp_path: Path):
    mask = np.zeros((6, 9), bool)
    mask[1:3, 4:8] = True
    plain = {"size": [6, 9], "counts": [54]}
    frames = [frame(label(rle=to_rle(mask), box2d=...), label(id="8", rle=plain))]
    tracks = read(tmp_path, frames, shape="mask")["v"].tracks
    assert tracks.boxes.tolist() == [[4, 1, 8, 3], [0, 0, 0, 0]]
    assert [one["size"] for one in tracks.masks] == [[6, 9], [6, 9]]
    assert tracks.masks[0]["counts"] == to_rle(mask)["counts"].encode()


def test_other_videos_are_not_looked_into(tmp_path: Path):
    frames = [frame(label()), frame(label(category="unicorn"), videoName="w")]
    videos = read(tmp_path, frames, sequences=("v",))
    assert [len(video.tracks) for video in videos.values()] == [1, 0]


BROKEN_BOX = {"x1": 1, "y1": 2, "x2": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"x\.json: not valid JSON"),
        (b'[{"labels": [NaN]}]', r"x\.json: not valid JSON"),
        ("text", r"x\.json: should be a list of frames or .*, found 'text'"),
        ({"config": {}}, r"should be a list of frames .*found None"),
        ({"frames": {}}, r"should be a list of frames .*found \{\}"),
        ([3], r"x\.json: \[0\]: a frame should be an object"),
        ({"frames": [frame(), []]}, r"x\.json: frames\[1\]: a frame should be an object"),
        ([frame(videoName=...)], r"\[0\]\.videoName: should name the frame's video, found None"),
        ([frame(videoName=3)], r"\[0\]\.videoName: should name the frame's video, found 3"),
        ([frame(frameIndex=...)], r"\[0\]\.frameIndex: should be a whole number from 0, found None"),
        ([frame(frameIndex=-1)], r"\[0\]\.frameIndex: should be a whole number from 0, found -1"),
        ([frame(frameIndex=2**63)], r"\[0\]\.frameIndex: should be a whole number from 0, found 92233"),
        ([frame(frameIndex=True)], r"\[0\]\.frameIndex: .* found True"),
        ([frame(frameIndex=0.5)], r"\[0\]\.frameIndex: .* found 0\.5"),
        ([frame(), frame()], r"\[1\]\.frameIndex: video 'v' has frame 0 twice, also at .*x\.json: \[0\]"),
        ([frame(labels={})], r"\[0\]\.labels: should be a list or null, found \{\}"),
        ([frame(4)], r"\[0\]\.labels\[0\]: a label should be an object, found 4"),
        ([frame(label(), label(category=...))], r"\[0\]\.labels\[1\]\.category: should be a name, but is missing"),
        ([frame(label(category=["car"]))], r"category: should be a name, found \['car'\]"),
        ([frame(label(category="cat"))], r"category: unknown category 'cat'; did you mean 'car'"),
        ([frame(label(category="unicorn"))], r"unknown category 'unicorn'; known: car, van, rider"),
        ([frame(label(id=...))], r"\.id: should be text or a whole number, but is missing"),
        ([frame(label(id=True))], r"\.id: should be text or a whole number, found True"),
        ([frame(label(id=1.5))], r"\.id: should be text or a whole number, found 1\.5"),
        ([frame(label(), label())], r"labels\[1\]\.id: '7' is twice in this frame, also at labels\[0\]"),
        ([frame(label(id=7), label(id="07"))], r"labels\[1\]\.id: '07' is twice"),
        ([frame(label(box2d=...))], r"\.box2d: should be an object, but is missing"),
        ([frame(label(box2d=[0, 0, 1, 1]))], r"\.box2d: should be an object, found \[0, 0, 1, 1\]"),
        ([frame(label(box2d=BROKEN_BOX))], r"\.box2d\.y2: should be a number, but is missing"),
        ([frame(label(box2d=BROKEN_BOX | {"y2": "4"}))], r"\.box2d\.y2: should be a number, found '4'"),
        ([frame(label(box2d=BROKEN_BOX | {"y2": True}))], r"\.box2d\.y2: should be a number, found True"),
        ([frame(label(box2d=BROKEN_BOX | {"y2": 1e12}))], r"\.box2d\.y2: should be finite and within 1,000,000,000"),
        ([frame(label(box2d=BROKEN_BOX | {"y2": 1}))], r"\.box2d: y2 = 1 is less than y1 = 2"),
        ([frame(label(box2d=BROKEN_BOX | {"x1": 5, "y2": 4}))], r"\.box2d: x2 = 3 is less than x1 = 5"),
        ([frame(label(score="high"))], r"\[0\]\.labels\[0\]\.score: should be a finite number, found 'high'"),
        ([frame(label(attributes=[1]))], r"\.attributes: should be an object or null, found \[1\]"),
        ([frame(label(attributes={"crowd": "maybe"}))], r"\.attributes\.crowd: should be true or false, found 'maybe'"),
        ([frame(label(attributes={"ignored": []}))], r"\.attributes\.ignored: should be true or false, found \[\]"),
    ],
)
def test_faults_name_file_and_place(tmp_path: Path, content: Any, message: str):
    with pytest.raises(BadTracks, match=message) as caught:
        read(tmp_path, content)
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


RLE = to_rle(np.ones((4, 5), bool))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (..., r"\[0\]\.labels\[1\]\.rle: should be an object, but is missing"),
        ("abc", r"\[0\]\.labels\[1\]\.rle: should be an object, found 'abc'"),
        ({"counts": "abc"}, r"labels\[1\]\.rle\.size: should be \[height, width\] in pixels, but is missing"),
        ({"counts": "abc", "size": [4, "5"]}, r"labels\[1\]\.rle\.size: should be \[height, width\]"),
        ({"counts": "abc", "size": [5, 4]}, r"rle\.size: is \[5, 4\], the video's first mask has \[4, 5\]"),
        ({"counts": "abc", "size": [4, 5]}, r"labels\[1\]\.rle\.counts: "),
        ({"counts": [30], "size": [4, 5]}, r"labels\[1\]\.rle\.counts: "),
        ({"size": [4, 5]}, r"labels\[1\]\.rle: should be .* 'size' and 'counts'"),
    ],
)
def test_faults_of_masks(tmp_path: Path, rle: Any, message: str):
    with pytest.raises(BadTracks, match=message):
        read(tmp_path, [frame(label(rle=RLE), label(id="8", rle=rle))], shape="mask")


@pytest.mark.parametrize("size", [[0, 5], [-4, 5], [10**12, 10**12]])
def test_impossible_frame_sizes(tmp_path: Path, size: list[int]):
    with pytest.raises(BadTracks, match=r"labels\[0\]\.rle"):
        read(tmp_path, [frame(label(rle={"size": size, "counts": "abc"}))], shape="mask")


def test_random_faults_never_crash(tmp_path: Path):
    """Whatever is put in place of any value, there is an answer or one line that names the file."""
    random = np.random.default_rng(0)
    odd: list[Any] = [None, True, -1, 1.5, "", "x", [], {}, [[]], 10**30, {"size": 3}]
    refused = 0
    for _ in range(300):
        content: Any = [frame(label(rle=RLE, score=0.5, attributes={"crowd": False})), frame(frameIndex=1)]
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[int(random.integers(len(keys)))]
            if isinstance(place[key], (dict, list)) and place[key] and random.random() < 0.8:
                place = place[key]
                continue
            place[key] = odd[int(random.integers(len(odd)))]
            break
        path = tmp_path / "x.json"
        path.write_bytes(orjson.dumps(content) if "1" + "0" * 30 not in str(content) else _with_long_number(content))
        for shape in ("box", "mask"):
            try:
                read_scalabel(str(path), CATEGORIES, side="results", shape=shape)
            except BadTracks as error:
                refused += 1
                assert "x.json" in str(error) and "\n" not in str(error)
    assert refused > 100


def _with_long_number(content: Any) -> bytes:
    import json

    return json.dumps(content).encode()


@needs_data("bdd100k/track/labels")
@pytest.mark.parametrize("shape", ["box", "mask"])
def test_real_file(shape: str):
    categories = {"car": 1, "truck": 2, "rider": 3, "motorcycle": 4}
    (video,) = read_scalabel(str(REAL), categories, side="gt", shape=shape).values()
    assert (len(video.frame_indices), len(video.tracks), len(np.unique(video.tracks.ids))) == (6, 167, 29)
    assert video.frame_names[0] == "b1c66a42-6f7d68ca/b1c66a42-6f7d68ca-0000001.jpg"
