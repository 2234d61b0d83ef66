"""Detections from MOTChallenge text, COCO JSON and Parquet: which frame, which class, and every broken row by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.make_media import coco_rle
from tests.tracking.make_tracking import make_frame, square_boxes, write_mot_detections
from trackmill.pipeline.tracking.detection_files import FileDetections, read_detections
from trackmill.schemas.masks import paste_mask

IMAGE = make_frame(0)


def read(path: Path, **options: Any) -> FileDetections:
    return read_detections(str(path), options.pop("video", "clip"), options.pop("file_names", {}), **options)


def of_frames(found: FileDetections, frames: list[int]) -> list[list[list[float]]]:
    return [each.boxes.tolist() for each in found.detect([IMAGE] * len(frames), frames)]


def test_mot_text(tmp_path: Path) -> None:
    """Identities are all -1 and the last frames come first, as in MOT17's files."""
    found = read(write_mot_detections(tmp_path / "det.txt", 4))
    assert of_frames(found, [2, 0, 9]) == [square_boxes(2).tolist(), square_boxes(0).tolist(), []]
    assert (found.names, found.category_ids) == (("object",), (1,))
    assert found.num_given == 6
    assert len(found) == 12


def test_scores_of_minus_one_are_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As MOTChallenge writes them; a tracker that wants a score of 0.5 would follow nothing."""
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,-1,-1,-1,-1\n2,-1,1,1,5,5,-1,-1,-1,-1\n")
    (found,) = read_detections(str(tmp_path / "det.txt"), "a", {}).detect([np.zeros((9, 9, 3), np.uint8)])
    assert found.scores.tolist() == [1]
    assert "det.txt: every score is -1, unknown: taken as 1" in caplog.text
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,-1,-1,-1,-1\n1,-1,1,1,5,5,0.5,-1,-1,-1\n")
    (found,) = read_detections(str(tmp_path / "det.txt"), "a", {}).detect([np.zeros((9, 9, 3), np.uint8)])
    assert found.scores.tolist() == [-1, 0.5]


def test_without_numbers_images_follow_each_other(tmp_path: Path) -> None:
    found = read(write_mot_detections(tmp_path / "det.txt", 4))
    boxes = [each.boxes.tolist() for number in (2, 1, 1) for each in found.detect([IMAGE] * number)]
    assert boxes == [square_boxes(step).tolist() for step in range(4)]


@pytest.mark.parametrize(
    "text",
    [
        b"1,-1,10,20,30,40,0.5\n1,-1,11,20,30,40,0.25\n2,-1,12,20,30,40,1\n",  # seven columns
        b"\xef\xbb\xbf1,-1,10,20,30,40,0.5,-1,-1,-1\r\n1,-1,11,20,30,40,0.25,-1,-1,-1\r\n2,-1,12,20,30,40,1,-1,-1,-1",
        b"1 -1 10 20 30 40 0.5\n1 -1 11 20 30 40 0.25\n2 -1 12 20 30 40 1\n",  # blanks instead of commas
        b"\n1, 3, 10, 20, 30, 40, 0.5\n\n1, 3, 11, 20, 30, 40, 0.25\n2, 3, 12, 20, 30, 40, 1\n",  # an id twice
    ],
)
def test_dialects_of_mot_text(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "det.txt").write_bytes(text)
    first, second = read(tmp_path / "det.txt").detect([IMAGE] * 2)
    assert first.boxes.tolist() == [[10, 20, 40, 60], [11, 20, 41, 60]]
    assert first.scores.tolist() == [0.5, 0.25]
    assert second.boxes.tolist() == [[12, 20, 42, 60]]


def test_classes_of_mot_text(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,1,7,-1,-1\n1,-1,2,2,5,5,1,3,-1,-1\n1,-1,3,3,5,5,1,7,-1,-1\n")
    found = read(tmp_path / "det.txt")
    assert (found.names, found.category_ids) == (("3", "7"), (3, 7))
    assert found.detect([IMAGE])[0].labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,-1,1,1,5,5,1\n\n1,-1,1,1,5,5,nan\n", "line 3: column 7 is not finite"),
        ("1,-1,1,1,5,5,1\n1,-1,1,1,5,x,1\n", "line 2: column 6 is no number"),
        ("1,-1,1,1,5,5,1\n1,-1,1,1,-5,5,1\n", "line 2: the box has a negative width"),
        ("1,-1,1,1,5,5,1\n0,-1,1,1,5,5,1\n", "line 2: frame 0"),
        ("1,-1,1,1,5\n", "line 1: 5 columns"),
        ("frame,id,x,y,w,h,s\n1,-1,1,1,5,5,1\n", "line 1: column 1 is no number: 'frame,id,x,y,w,h,s'; a line of head"),
        ("1,-1,1,1,5,5,1\n1,,1,1,5,5,1\n", "line 2: column 2 is no number"),
    ],
)
def test_broken_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "det.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"det\.txt: {message}"):
        read(tmp_path / "det.txt")


def test_least_score_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,0.3\n1,-1,2,1,5,5,0.5\n2,-1,3,1,5,5,-7.5\n")
    assert of_frames(read(tmp_path / "det.txt", min_score=0.5), [0, 1]) == [[[2, 1, 7, 6]], []]
    assert len(read(tmp_path / "det.txt")) == 3, "scores need not be probabilities"
    (tmp_path / "det.txt").write_text("")
    assert of_frames(read(tmp_path / "det.txt"), [0, 1]) == [[], []]


def coco(**changes: Any) -> dict[str, Any]:
    """Two videos of two frames; ids that count neither from 0 nor from 1."""
    content: dict[str, Any] = {
        "videos": [{"id": 4, "name": "set/clip"}, {"id": 5, "name": "set/other.mp4"}],
        "images": [
            {"id": 70, "video_id": 4, "frame_index": 3, "file_name": "set/clip/b.jpg"},
            {"id": 71, "video_id": 5, "frame_index": 0, "file_name": "set/other/a.jpg"},
            {"id": 72, "video_id": 4, "frame_index": 0, "file_name": "set/clip/a.jpg"},
        ],
        "annotations": [
            {"image_id": 72, "category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 71, "category_id": 17, "bbox": [9, 9, 9, 9], "score": 0.9},
            {"image_id": 70, "category_id": 17, "bbox": [5, 6, 7, 8], "score": 0.25},
            {"image_id": 72, "category_id": 17, "bbox": [2, 2, 3, 4], "score": 1},
        ],
        "categories": [{"id": 90, "name": "cat"}, {"id": 17, "name": "dog"}],
    }
    return {**content, **changes}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_coco_by_frame_index(tmp_path: Path) -> None:
    found = read(write(tmp_path / "det.json", coco()))
    first, fourth = found.detect([IMAGE] * 2, [0, 3])
    assert first.boxes.tolist() == [[1, 2, 4, 6], [2, 2, 5, 6]]
    assert first.labels.tolist() == [0, 1]
    assert found.names == ("cat", "dog")
    assert found.category_ids == (90, 17)
    assert fourth.scores.tolist() == [0.25]
    assert len(found) == 3, "the other video's are not given"


def test_coco_by_file_name(tmp_path: Path) -> None:
    """Pictures decide where pictures are tracked: b.jpg is the second file here, whatever its frame_index."""
    found = read(write(tmp_path / "det.json", coco()), file_names={"a.jpg": 0, "b.jpg": 1})
    assert of_frames(found, [0, 1]) == [[[1, 2, 4, 6], [2, 2, 5, 6]], [[5, 6, 12, 14]]]


def test_coco_without_videos_counts_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [{"id": 72}, {"id": 70}, {"id": 71}]
    found = read(write(tmp_path / "det.json", coco(images=images)))
    assert of_frames(found, [1, 2]) == [[[5, 6, 12, 14]], [[9, 9, 18, 18]]]


def test_a_bare_list_needs_the_images(tmp_path: Path) -> None:
    results = write(tmp_path / "results.json", coco()["annotations"])
    with pytest.raises(ValueError, match="--images"):
        read(results)
    table = write(tmp_path / "gt.json", coco(annotations=[]))
    found = read(results, images=str(table))
    assert of_frames(found, [0, 3]) == [[[1, 2, 4, 6], [2, 2, 5, 6]], [[5, 6, 12, 14]]]


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        ("annotations", "score", None, r"annotations\[1\].score: should be a finite number"),
        ("annotations", "bbox", [1, 2, 3], r"annotations\[1\].bbox"),
        ("annotations", "bbox", [1, 2, -3, 1], r"annotations\[1\].bbox: width and height should not be negative"),
        ("annotations", "image_id", 99, r"annotations\[1\].image_id: there is no image 99"),
        ("annotations", "category_id", 5, r"annotations\[1\].category_id: there is no category 5"),
        ("images", "id", "x", r"images\[1\].id: should be a whole number"),
    ],
)
def test_broken_coco_rows(tmp_path: Path, place: str, key: str, value: Any, message: str) -> None:
    content = coco()
    content[place][1][key] = value
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "det.json", content))


def test_nan_in_json(tmp_path: Path) -> None:
    (tmp_path / "det.json").write_text(json.dumps(coco()).replace("0.9", "NaN"))
    with pytest.raises(ValueError, match="not valid JSON"):
        read(tmp_path / "det.json")


def test_which_video_must_be_clear(tmp_path: Path) -> None:
    path = write(tmp_path / "det.json", coco())
    assert len(read(path, video="other")) == 1, "by the file's name without its suffix"
    with pytest.raises(ValueError, match="none of them called 'third'"):
        read(path, video="third")
    with pytest.raises(ValueError, match="none of them is a frame of 'clip'"):
        read(path, file_names={"z.jpg": 0})
    with pytest.raises(ValueError, match="has no 'images'"):
        read(write(tmp_path / "det.json", {"annotations": []}))


def test_masks_of_coco(tmp_path: Path) -> None:
    mask = np.zeros((60, 100), bool)
    mask[10:20, 30:45] = True
    content = coco()
    content["annotations"][0]["segmentation"] = coco_rle(mask)
    first = read(write(tmp_path / "det.json", content)).detect([IMAGE], [0])[0]
    assert first.masks is not None
    assert first.masks[1] is None
    assert (paste_mask(first.masks[0], 60, 100) == mask).all()
    content["annotations"][0]["segmentation"] = coco_rle(mask[:50])
    with pytest.raises(ValueError, match=r"annotations\[0\].segmentation.size"):
        read(write(tmp_path / "det.json", content)).detect([IMAGE], [0])


def parquet(path: Path, **columns: list[Any]) -> Path:
    basic: dict[str, list[Any]] = {"frame": [1, 0], "x0": [1.5, 0], "y0": [2, 0], "x1": [3, 4], "y1": [4, 4]}
    pyarrow.parquet.write_table(pa.table({**basic, **columns}), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    found = read(parquet(tmp_path / "det.parquet", score=[0.5, 1], name=["dog", "cat"]))
    first, second = found.detect([IMAGE] * 2)
    assert second.boxes.tolist() == [[1.5, 2, 3, 4]]
    assert [found.names[each.labels[0]] for each in (first, second)] == ["cat", "dog"]
    assert read(parquet(tmp_path / "det.parquet")).detect([IMAGE])[0].scores.tolist() == [1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"score": [0.5, float("nan")]}, "row 1: score is not finite"),
        ({"score": [None, 0.5]}, "row 0: score is not finite, or missing"),
        ({"frame": [0.5, 0]}, "row 0: frame should be a whole number"),
        ({"frame": [0, -1]}, "row 1: frame should be a whole number from 0"),
        ({"x1": [0, 4]}, "row 0: x1 or y1 lies before"),
        ({"x1": ["a", "b"]}, "column 'x1' holds string"),
    ],
)
def test_broken_parquet(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(parquet(tmp_path / "det.parquet", **columns))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "det.pkl").write_bytes(b"x")
    with pytest.raises(ValueError, match="detections are read from"):
        read(tmp_path / "det.pkl")
    (tmp_path / "det.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read(tmp_path / "det.parquet")
    pyarrow.parquet.write_table(pa.table({"frame": [0]}), tmp_path / "det.parquet")
    with pytest.raises(ValueError, match="has no column 'x0'"):
        read(tmp_path / "det.parquet")


def test_parquet_of_masks_says_what_is_missing_or_wrong(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "frame": [0],
        "x0": [1.0],
        "y0": [1.0],
        "x1": [4.0],
        "y1": [5.0],
        "mask": [coco_rle(np.ones((9, 9), bool))["counts"]],
    }
    for changes, said in (
        ({}, "has no column 'height'; needed are .*height, width, mask, where there is a column 'mask'"),
        ({"height": ["9"], "width": [9]}, "column 'height' holds string, should hold whole numbers"),
        ({"height": [9], "width": [9], "mask": [3]}, "column 'mask' holds int64"),
        ({"height": [9], "width": [9], "mask": [{"a": 1}]}, "column 'mask' holds struct"),
        ({"mask": None, "x1": [1e308]}, "row 0: the box lies farther than 1e.09 pixels"),
        ({"mask": None, "frame": [10**18]}, "row 0: frame should be a whole number from 0 to"),
        ({"mask": None, "frame": [[0]]}, "column 'frame' holds list"),
        ({"mask": None, "name": [1.5]}, "column 'name' holds double, should hold texts"),
    ):
        columns = {name: values for name, values in {**table, **changes}.items() if values is not None}
        pa.parquet.write_table(pa.table(columns), tmp_path / "det.parquet")
        with pytest.raises(ValueError, match=rf"det\.parquet: {said}"):
            read(tmp_path / "det.parquet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": [6e8, 1, 6e8, 1]}, r"annotations\[0\]\.bbox: the box lies farther than 1e.09 pixels"),
        ({"bbox": [1, 1, 1, 1.8e19]}, r"annotations\[0\]\.bbox: should be"),
        ({"score": 1e300}, r"annotations\[0\]\.score: the score should be a number of 32 bits, found 1e.300"),
    ],
)
def test_numbers_of_json_that_no_frame_holds_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    content = coco()
    content["annotations"][0].update(changes)
    (tmp_path / "det.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"det\.json: {said}"):
        read(tmp_path / "det.json")


def test_scores_of_text_that_are_infinite_in_32_bits(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,1\n1,-1,1,1,5,5,1e300\n")
    with pytest.raises(ValueError, match=r"det\.txt: line 2: the score should be a number of 32 bits"):
        read(tmp_path / "det.txt")
