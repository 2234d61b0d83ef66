"""Reading TAO and COCO-VID files: what is taken, in which order, and what is refused with which words."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.evaluation.make_tao import Json, make_files, make_videos, write_files
from trackmill.pipeline.evaluation.class_vote import vote
from trackmill.pipeline.evaluation.readers.coco_video import CocoVideos, read_coco_video
from trackmill.pipeline.formats.errors import BadTracks

TRUTH: Json = {
    "videos": [
        {"id": 4, "name": "val/b", "neg_category_ids": [30], "not_exhaustive_category_ids": [10]},
        {"id": 2, "name": "val/a"},
    ],
    "images": [
        {"id": 9, "video_id": 4, "frame_index": 60, "file_name": "b/2.jpg", "height": 8, "width": 10},
        {"id": 5, "video_id": 4, "frame_index": 30, "file_name": "b/1.jpg", "height": 8, "width": 10},
        {"id": 7, "video_id": 2, "frame_index": 0, "file_name": "a/0.jpg", "height": 8, "width": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "video_id": 4, "track_id": 1, "category_id": 11, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 5, "track_id": 1, "category_id": 10, "bbox": [0.5, 2, 3, 0], "iscrowd": 1},
        {"id": 3, "image_id": 7, "track_id": 1, "category_id": 20, "bbox": [0, 0, 1, 1]},
    ],
    "categories": [
        {"id": 30, "name": "dog", "frequency": "r"},
        {"id": 20, "name": "cat", "frequency": "f"},
        {"id": 10, "name": "car", "frequency": "c", "merged": [{"id": 11}]},
    ],
}
RESULTS: list[Json] = [
    {"image_id": 9, "video_id": 4, "track_id": 3, "category_id": 30, "bbox": [1, 1, 2, 2], "score": 0.25},
    {"image_id": 5, "track_id": 8, "category_id": 11, "bbox": [1, 1, 2, 2], "score": 0.5},
    {"image_id": 7, "track_id": 3, "category_id": 20, "bbox": [1, 1, 2, 2], "score": 0.5},
    {"image_id": 9, "track_id": 8, "category_id": 10, "bbox": [1, 1, 2, 2], "score": 0.75},
    {"image_id": 9, "track_id": 5, "category_id": 10, "bbox": [1, 1, 2, 2], "score": 1},
]


def read(folder: Path, truth: Any = TRUTH, results: Any = RESULTS, **options: Any) -> CocoVideos:
    gt, found = write_files(folder, truth, results)
    return read_coco_video(gt, found, **options)


def test_reads_what_stands_there(tmp_path: Path) -> None:
    data = read(tmp_path)
    first, second = data.videos
    assert [about.video.name for about in data.videos] == ["val-a", "val-b"]
    assert [about.video.num_frames for about in data.videos] == [1, 2]
    assert second.video.frame_names == ("b/1.jpg", "b/2.jpg")
    assert (second.negative, second.not_exhaustive) == ({30}, {10}) and not first.negative
    assert data.labels == (20, 10), "in the order of categories, alias folded"
    gt, predictions = second.video.gt, second.video.predictions
    assert gt.frames.tolist() == [0, 1] and second.gt_places.tolist() == [1, 0]
    assert gt.boxes.tolist() == [[0.5, 2, 3.5, 2], [1, 2, 4, 6]]
    assert gt.labels.tolist() == [10, 10] and gt.scores.tolist() == [1, 1] and not gt.ignored.any()
    assert predictions.frames.tolist() == [0, 1, 1, 1]
    assert predictions.ids.tolist() == [8, 3, 8, 5], "rows of an image keep the order of the file"
    assert predictions.labels.tolist() == [10, 30, 10, 10]
    assert predictions.scores.tolist() == [0.5, 0.25, 0.75, 1]
    assert predictions.masks is None
    assert data.most_predictions == 3 and data.notes == ()


def test_best_predictions_of_an_image(tmp_path: Path) -> None:
    data = read(tmp_path, max_detections=2)
    predictions = data.videos[1].video.predictions
    assert predictions.ids.tolist() == [8, 5, 8], "an image that lost a row is ordered by score"
    assert data.videos[1].prediction_places.tolist() == [3, 0, 1], "images in the order in which they come"
    assert data.notes == ("1 predictions beyond the best 2 of their image were left out",)
    assert read(tmp_path, max_detections=3).videos[1].video.predictions.ids.tolist() == [8, 3, 8, 5]


def test_equal_scores_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [{**RESULTS[0], "track_id": i, "score": 0.5} for i in (7, 3, 9, 1)]
    assert read(tmp_path, results=rows, max_detections=3).videos[1].video.predictions.ids.tolist() == [7, 3, 9]


def test_sequences_by_either_name(tmp_path: Path) -> None:
    for name in ("val/b", "val-b"):
        data = read(tmp_path, sequences=[name])
        assert [about.video.name for about in data.videos] == ["val-b"] and data.labels == (10,)
    with pytest.raises(BadTracks, match="unknown sequence 'val-c'; did you mean 'val-"):
        read(tmp_path, sequences=["val/c"])


def test_results_in_several_files_gzip_and_ground_truth_as_results(tmp_path: Path) -> None:
    gt, results = write_files(tmp_path, TRUTH, RESULTS)
    whole = read_coco_video(gt, results).videos[1].video.predictions
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.json").write_bytes(orjson.dumps(RESULTS[:2]))
    (folder / "b.json.gz").write_bytes(gzip.compress(orjson.dumps(RESULTS[2:])))
    parts = read_coco_video(str(tmp_path / "gt"), str(folder)).videos[1].video.predictions
    for name in ("frames", "ids", "boxes", "labels", "scores"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()
    data = read_coco_video(gt, gt)
    assert data.videos[1].video.predictions.ids.tolist() == data.videos[1].video.gt.ids.tolist()
    assert data.notes == (f"{gt}: has no scores, all count as 1",)
    (folder / "b.json.gz").write_bytes(gzip.compress(orjson.dumps([{**RESULTS[2], "score": "high"}])))
    with pytest.raises(BadTracks, match=r"b\.json\.gz: \[0\]\.score: should be a finite number, found 'high'"):
        read_coco_video(gt, str(folder))


def test_coco_vid_names(tmp_path: Path) -> None:
    """`frame_id` for `frame_index`, `instance_id` for `track_id`, sizes at the video, no file names."""
    truth = copy.deepcopy(TRUTH)
    for image in truth["images"]:
        image["frame_id"] = image.pop("frame_index")
        del image["file_name"]
    for row in truth["annotations"]:
        row["instance_id"] = row.pop("track_id") + 10
    second = read(tmp_path, truth).videos[1]
    assert second.video.gt.ids.tolist() == [11, 11] and second.video.frame_names == ()


@pytest.mark.parametrize("size_at", ["images", "videos"])
def test_masks(tmp_path: Path, size_at: str) -> None:
    """Uncompressed runs and polygons; without `bbox`, boxes are those of the masks."""
    truth, results = copy.deepcopy(TRUTH), copy.deepcopy(RESULTS)
    for row in results:
        del row["bbox"]
        row["segmentation"] = {"size": [8, 10], "counts": [17, 3, 60]}
    for row in truth["annotations"]:
        row["segmentation"] = [[2, 1, 4, 1, 4, 5, 2, 5]]
    if size_at == "videos":
        for image in truth["images"]:
            del image["height"], image["width"]
        for video in truth["videos"]:
            video |= {"height": 8, "width": 10}
    video = read(tmp_path, truth, results, iou="mask").videos[1].video
    assert video.predictions.masks is not None and video.gt.masks is not None
    assert video.predictions.masks[0]["size"] == [8, 10]
    assert video.predictions.boxes[0].tolist() == [2, 1, 3, 4]
    assert video.gt.boxes[0].tolist() == [0.5, 2, 3.5, 2], "a box that is given stays"
    with pytest.raises(BadTracks, match=r"results\.json: \[0\]: has no 'segmentation'; compare boxes with --iou box"):
        read(tmp_path, truth, RESULTS, iou="mask")
    results[3]["segmentation"]["counts"] = [17, 3]
    with pytest.raises(BadTracks, match=r"results\.json: \[3\]\.segmentation\.counts: mask has 20 pixels"):
        read(tmp_path, truth, results, iou="mask")


@pytest.mark.parametrize("absent", [None, []])
def test_an_empty_mask_is_no_object(tmp_path: Path, absent: Any) -> None:
    """As the error about polygons says: null, or an empty list, where the object is absent."""
    truth, results = copy.deepcopy(TRUTH), copy.deepcopy(RESULTS)
    for row in [*truth["annotations"], *results]:
        row["segmentation"] = {"size": [8, 10], "counts": [17, 3, 60]}
    results[0]["segmentation"] = truth["annotations"][2]["segmentation"] = absent
    data = read(tmp_path, truth, results, iou="mask")
    assert [len(about.video.gt) for about in data.videos] == [0, 2]
    assert [len(about.video.predictions) for about in data.videos] == [1, 3]
    assert data.labels == (10,), "a class whose only object is absent is not scored"
    assert data.notes == (
        "ground truth: 1 without a mask (segmentation empty or null), taken as absent",
        "results: 1 without a mask (segmentation empty or null), taken as absent",
    )
    assert len(read(tmp_path, truth, results).videos[0].video.gt) == 1, "boxes are compared all the same"
    # Places in errors are those of the file.
    results[3]["segmentation"]["counts"] = [17, 3]
    with pytest.raises(BadTracks, match=r"results\.json: \[3\]\.segmentation\.counts: mask has 20 pixels"):
        read(tmp_path, truth, results, iou="mask")


def test_nothing_at_all(tmp_path: Path) -> None:
    data = read(tmp_path, {"videos": [], "images": [], "annotations": [], "categories": []}, [])
    assert (data.videos, data.labels, data.most_predictions) == ((), (), 0)
    data = read(tmp_path, results=[])
    assert len(data.videos[0].video.predictions) == 0
    assert data.notes[0].endswith("results.json: no objects in the results")


def test_vote_by_hand() -> None:
    tracks = np.array([5, 5, 5, 9, 9, 5, 9, 9])
    labels = np.array([2, 7, 7, 8, 3, 1, 3, 8])
    assert vote(tracks, labels).tolist() == [7, 7, 7, 3, 3, 7, 3, 3], "of equally frequent classes the smallest id"
    assert vote(tracks[:0], labels[:0]).tolist() == []


def test_vote_counts_tracks_of_a_video_and_comes_before_merging_and_limits(tmp_path: Path) -> None:
    # In video 4, track 8 is called 11, 10, 30, 30; 10 and 11 are one category, but not yet when the vote is taken.
    rows = [{**RESULTS[0], "track_id": 8, "category_id": label} for label in (11, 10, 30, 30, 20, 20, 20)]
    images = (9, 5, 105, 106, 7, 107, 108)
    rows = [{**row, "image_id": image} for row, image in zip(rows, images)]
    for row in rows:
        del row["video_id"]
    truth = copy.deepcopy(TRUTH)
    for image, video in ((105, 4), (106, 4), (107, 2), (108, 2)):
        truth["images"].append({**truth["images"][0], "id": image, "video_id": video, "frame_index": image})
    data = read(tmp_path, truth, rows, class_vote=True)
    assert [about.video.predictions.labels.tolist() for about in data.videos] == [[20] * 3, [30] * 4]
    data = read(tmp_path, truth, rows)
    assert data.videos[1].video.predictions.labels.tolist() == [10, 10, 30, 30]


def test_vote_equals_pandas_like_mode(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(4), 4)
    video_of = {image["id"]: image["video_id"] for image in truth["images"]}
    tracks: dict[tuple[int, int], list[int]] = {}
    for row in results:
        tracks.setdefault((video_of[row["image_id"]], row["track_id"]), []).append(row["category_id"])
    winners = {track: min(set(said), key=lambda label: (-said.count(label), label)) for track, said in tracks.items()}
    voted = [{**row, "category_id": winners[video_of[row["image_id"]], row["track_id"]]} for row in results]
    assert voted != results
    by_hand, ours = read(tmp_path, truth, voted), read(tmp_path, truth, results, class_vote=True)
    for a, b in zip(by_hand.videos, ours.videos):
        assert a.video.predictions.labels.tolist() == b.video.predictions.labels.tolist()


def at(*keys: Any, value: Any = None, drop: bool = False) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if drop:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        return content

    return change


BAD_TRUTH = [
    (lambda content: [], r"gt\.json: should be an object with videos, images, annotations and categories"),
    (at("images", drop=True), r"gt\.json: has no 'images'"),
    (at("images", value={}), r"gt\.json: images: should be a list of objects, found \{\}"),
    (at("annotations", 1, value=7), r"gt\.json: annotations\[1\]: should be an object, found 7"),
    (at("annotations", 1, "bbox", drop=True), r"gt\.json: annotations\[1\]: has no 'bbox'"),
    (at("annotations", 1, "bbox", value=[1, 2, 3]), r"annotations\[1\]\.bbox: should be \[x, y, width, height\]"),
    (at("annotations", 1, "bbox", value=[1, 2, "3", 4]), r"annotations\[1\]\.bbox: should be"),
    (at("annotations", 1, "bbox", value=[1, 2, True, 4]), r"annotations\[1\]\.bbox: should be"),
    (at("annotations", 1, "bbox", value=[1, 2, 1e300, 4]), r"annotations\[1\]\.bbox: should be"),
    (at("annotations", 1, "bbox", value=None), r"annotations\[1\]\.bbox: should be"),
    (at("annotations", 2, "bbox", value=[1, 2, -3, 4]), r"annotations\[2\]\.bbox: width and height should not be neg"),
    (at("annotations", 0, "image_id", value=6), r"annotations\[0\]\.image_id: the ground truth has no image 6"),
    (at("annotations", 0, "video_id", value=2), r"annotations\[0\]\.video_id: image 9 belongs to video 4, found 2"),
    (at("annotations", 0, "category_id", value=99), r"annotations\[0\]\.category_id: the ground truth has no category"),
    (at("annotations", 0, "track_id", value="1"), r"annotations\[0\]\.track_id: should be a whole number, found '1'"),
    (at("annotations", 0, "track_id", value=1.5), r"annotations\[0\]\.track_id: should be a whole number"),
    (at("annotations", 0, "track_id", value=2**63), r"annotations\[0\]\.track_id: should be a whole number"),
    (at("annotations", 1, "image_id", value=9), r"annotations\[1\]: track 1 is twice in image 9, first at"),
    (at("images", 0, "video_id", value=3), r"images\[0\]\.video_id: no video 3 in videos"),
    (at("images", 1, "id", value=9), r"images\[1\]\.id: .*images\[0\] has id 9 too"),
    (at("images", 0, "frame_index", value=30), r"images\[1\]\.frame_index: image 9 of the same video is frame 30 too"),
    (at("images", 0, "frame_index", drop=True), r"images\[0\]: has no 'frame_index'"),
    (at("videos", 1, "id", value=4), r"videos\[1\]\.id: "),
    (at("videos", 1, "name", value="val-b"), r"videos\[1\]\.name: .*videos\[0\] is called 'val-b' too"),
    (at("videos", 1, "name", drop=True), r"videos\[1\]: has no 'name'"),
    (at("videos", 0, "neg_category_ids", value=["dog"]), r"videos\[0\]\.neg_category_ids: should be a list of cat"),
    (at("categories", 1, "id", value=30), r"categories\[1\]\.id: "),
    (at("categories", 1, "name", value=3), r"categories\[1\]\.name: should be text, found 3"),
    (at("categories", 2, "merged", value=[{}]), r"categories\[2\]\.merged\[0\]: has no 'id'"),
    (at("categories", 2, "frequency", value=1), r"categories\[2\]\.frequency: should be text"),
]
BAD_RESULTS = [
    (lambda content: {"boxes": content}, r"results\.json: should be a list of boxes with image_id"),
    (lambda content: 7, r"results\.json: should be a list of boxes"),
    (at(2, value=None), r"results\.json: \[2\]: should be an object, found None"),
    (at(2, "track_id", drop=True), r"results\.json: \[2\]: has no 'track_id'"),
    (at(2, "score", drop=True), r"results\.json: \[2\]: has no 'score'"),
    (at(2, "score", value=None), r"results\.json: \[2\]\.score: should be a finite number, found None"),
    (at(2, "image_id", value=1), r"results\.json: \[2\]\.image_id: the ground truth has no image 1"),
    (at(0, "video_id", value=77), r"results\.json: \[0\]\.video_id: image 9 belongs to video 4, found 77"),
    (at(2, "category_id", value=0), r"results\.json: \[2\]\.category_id: the ground truth has no category 0"),
    (at(4, "track_id", value=8), r"results\.json: \[4\]: track 8 is twice in image 9, first at .*\[3\]"),
    (at(4, "bbox", value=[1, 1, 1, -2]), r"results\.json: \[4\]\.bbox: width and height should not be negative"),
]


@pytest.mark.parametrize("change, message", BAD_TRUTH, ids=[message for _, message in BAD_TRUTH])
def test_bad_ground_truth(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(BadTracks, match=message) as caught:
        read(tmp_path, change(copy.deepcopy(TRUTH)))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("change, message", BAD_RESULTS, ids=[message for _, message in BAD_RESULTS])
def test_bad_results(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(BadTracks, match=message) as caught:
        read(tmp_path, results=change(copy.deepcopy(RESULTS)))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_not_json_and_too_many_files(tmp_path: Path) -> None:
    gt, results = write_files(tmp_path, TRUTH, RESULTS)
    for content in (b'[{"image_id": 9, "bbox": [NaN, 1, 2, 3]}]', b"", b"\x80\x04pickle"):
        Path(results).write_bytes(content)
        with pytest.raises(BadTracks, match=r"results\.json: not valid JSON"):
            read_coco_video(gt, results)
    (tmp_path / "gt" / "other.json").write_text("{}")
    with pytest.raises(BadTracks, match="holds 2 JSON files; name the one with the ground truth"):
        read_coco_video(str(tmp_path / "gt"), results)
    with pytest.raises(FileNotFoundError):
        read_coco_video(str(tmp_path / "none.json"), results)
