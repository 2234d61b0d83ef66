"""Track mAP: TAO's as TrackEval counts it, and YouTube-VIS's as pycocotools' COCOeval does on whole tracks."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.evaluation.make_track_files import make_tao
from tests.evaluation.make_tracks import Faults, make_video, with_masks
from tests.fixtures import packed
from trackmill.pipeline.evaluation.metrics.track_map import TrackMap, average_precision
from trackmill.pipeline.evaluation.metrics.track_overlaps import TrackTable, mask_areas, track_ious, track_table
from trackmill.pipeline.evaluation.tracks import Tracks, Video, make_tracks, no_tracks

SCOPES = ("all", "area_s", "area_m", "area_l", "time_s", "time_m", "time_l")
NAMES = [f"{kind}_{scope}" for kind in ("AP", "AR") for scope in SCOPES]
MANY_COPIES = Faults(miss=0.3, jitter=0.02, doubled=0.5, switch=0.002, invented=1, wrong_label=0.1)
FEW_FAULTS = Faults(miss=0.1, miss_hidden=0.2, jitter=0.02, doubled=0.5, switch=0, swap=0, invented=0.5)


# ---------------------------------------------------------------------------------------------------------- TAO


def _columns(annotations: list[dict], steps: Mapping[int, int], merged: Mapping[int, int]) -> Tracks:
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [merged.get(annotation["category_id"], annotation["category_id"]) for annotation in annotations]
    return make_tracks(
        [steps[annotation["image_id"]] for annotation in annotations],
        [annotation["track_id"] for annotation in annotations],
        boxes,
        labels=labels,
        scores=[annotation.get("score", 1.0) for annotation in annotations],
    )


def _tao_scores(gt: dict, results: list[dict]) -> dict[str, dict[str, float | None]]:
    """Scores of each class by name, and of their mean as `cls_comb_cls_av`; tracks in the order of the file."""
    merged = {alias["id"]: entry["id"] for entry in gt["categories"] for alias in entry.get("merged", ())}
    metric = TrackMap("tao", "box")
    for about in gt["videos"]:
        images = [image for image in gt["images"] if image["video_id"] == about["id"]]
        steps = {image["id"]: i for i, image in enumerate(sorted(images, key=lambda image: image["frame_index"]))}
        truths = [annotation for annotation in gt["annotations"] if annotation["video_id"] == about["id"]]
        guesses = [annotation for annotation in results if annotation["image_id"] in steps]
        rows = _columns(guesses, steps, merged)
        metric.add(
            Video(name=about["name"], num_frames=len(steps), gt=_columns(truths, steps, merged), predictions=rows),
            negative_labels=about["neg_category_ids"],
            not_exhaustive_labels=about["not_exhaustive_category_ids"],
            predicted_tracks=_in_order_of_file(rows, guesses, merged),
        )
    names = {entry["id"]: entry["name"] for entry in gt["categories"]}
    scores = {names[label]: row for label, row in metric.scores().items()}
    return scores | {"cls_comb_cls_av": average_precision(metric.scores().values())}


def _in_order_of_file(rows: Tracks, annotations: list[dict], merged: Mapping[int, int]) -> TrackTable:
    table = track_table(rows, "box")
    first: dict[int, int] = {}
    for annotation in annotations:
        label = annotation["category_id"]
        first.setdefault(annotation["track_id"], merged.get(label, label))
    place = [table.ids.tolist().index(number) for number in first]
    columns = {name: getattr(table, name)[place] for name in TrackTable.__dataclass_fields__}
    return TrackTable(**columns | {"labels": np.array(list(first.values()), np.int64)})


def _trackeval_tao(gt: dict, results: list[dict], folder: Path) -> dict[str, dict[str, Any]]:
    trackeval = pytest.importorskip("trackeval")
    (folder / "gt").mkdir()
    (folder / "trackers" / "ours" / "data").mkdir(parents=True)
    (folder / "gt" / "gt.json").write_text(json.dumps(gt))
    (folder / "trackers" / "ours" / "data" / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = trackeval.datasets.TAO(
            {"GT_FOLDER": str(folder / "gt"), "TRACKERS_FOLDER": str(folder / "trackers"), "PRINT_CONFIG": False}
        )
        metric = trackeval.metrics.TrackMAP({"PRINT_CONFIG": False})
        found = {}
        raw = {name: dataset.get_raw_seq_data("ours", name) for name in dataset.seq_list}
        for label in dataset.class_list:
            each = {
                name: metric.eval_sequence(dataset.get_preprocessed_seq_data(data, label)) for name, data in raw.items()
            }
            found[label] = metric.combine_sequences(each)
        found["cls_comb_cls_av"] = metric.combine_classes_class_averaged(found)
    return found


def _assert_like_trackeval(gt: dict, results: list[dict], folder: Path) -> dict[str, dict[str, float | None]]:
    official = _trackeval_tao(copy.deepcopy(gt), copy.deepcopy(results), folder)
    ours = _tao_scores(gt, results)
    assert ours.keys() == official.keys()
    for label, row in ours.items():
        for name in NAMES:
            expected = float(np.mean(official[label][name]))
            assert row[name] == pytest.approx(None if expected == -1 else expected, abs=1e-12), (label, name)
        for name, index in (("AP50", 0), ("AP75", 5)):
            assert row[name] == pytest.approx(float(official[label]["AP_all"][index]), abs=1e-12), (label, name)
    return ours


@pytest.mark.parametrize("seed", range(4))
def test_tao_is_trackevals(seed, tmp_path):
    gt, results = make_tao(seed=seed, num_videos=3 + seed, num_frames=14, num_objects=8)
    scores = _assert_like_trackeval(gt, results, tmp_path)
    assert scores["cls_comb_cls_av"]["AP_all"] > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_tao_with_a_single_track_zero_is_trackevals(seed, tmp_path):
    """One video, so that track 0 keeps its number, and copies that can match what it has matched."""
    gt, results = make_tao(seed=10 + seed, num_videos=1, num_objects=10, faults=MANY_COPIES)
    numbers = sorted({row["track_id"] for row in results}, key=lambda n: -sum(r["track_id"] == n for r in results))
    renumbered = {number: i for i, number in enumerate(numbers)}
    for row in results:
        row["track_id"] = renumbered[row["track_id"]]
    _assert_like_trackeval(gt, results, tmp_path)


def test_track_zero_can_be_found_again():
    """What TrackEval does with the number 0: a copy of that track is right too; of any other track it is false."""
    box = [[0, 0, 10, 10]]
    gt = make_tracks([0], [7], box)
    for number, recall in ((0, 2.0), (3, 1.0)):
        metric = TrackMap("tao", "box")
        predictions = make_tracks([0, 0], [number, 5], box * 2, scores=[0.9, 0.8])
        metric.add(Video(name="a", num_frames=1, gt=gt, predictions=predictions))
        assert metric.scores()[1]["AR_all"] == recall
    metric = TrackMap("tao", "box")
    for name in ("a", "b"):
        predictions = make_tracks([0, 0], [0, 5], box * 2, scores=[0.9, 0.8])
        metric.add(Video(name=name, num_frames=1, gt=gt, predictions=predictions))
    assert metric.scores()[1]["AR_all"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_tao_ties_and_order_of_the_file_are_trackevals(seed, tmp_path):
    """All scores alike, coordinates in whole pixels, and the file track by track instead of image by image."""
    gt, results = make_tao(seed=20 + seed, num_videos=2, num_objects=9, faults=MANY_COPIES)
    for row in [*gt["annotations"], *results]:
        row["bbox"] = [float(round(number / 8) * 8) for number in row["bbox"]]
    for row in results:
        row["score"] = 0.5
    _assert_like_trackeval(gt, results, tmp_path)


def test_tao_without_predictions_is_trackevals(tmp_path):
    gt, results = make_tao(seed=30, num_videos=2)
    scores = _assert_like_trackeval(gt, [row for row in results if row["video_id"] == 1][:1], tmp_path)
    nothing = _tao_scores(gt, [])
    assert nothing.keys() == scores.keys()
    assert all(row["AP_all"] == 0 and row["AR_all"] == 0 for row in nothing.values())


def test_tao_areas_on_a_bound_belong_to_both_ranges(tmp_path):
    gt, results = make_tao(seed=31, num_videos=2)
    for row in gt["annotations"]:
        row["bbox"][2:] = [32, 32] if row["track_id"] % 2 else [96, 96]
    for row in results:
        row["bbox"][2:] = [32, 32]
    _assert_like_trackeval(gt, results, tmp_path)


def test_tao_reference_case():
    gt, results, expected = (
        packed.read_json(f"teta/basic/{name}") for name in ("gt.json", "pred.json", "expected_tao_track_map_hota.json")
    )
    for label, row in _tao_scores(gt, results).items():
        for name in NAMES:
            value = expected[label][f"TrackMAP.{name}"]
            assert row[name] == pytest.approx(None if value == -1 else value, abs=1e-9), (label, name)


def test_negative_and_not_exhaustive_classes():
    box = [[0.0, 0, 40, 40]]
    far = [[100.0, 100, 140, 140]]
    gt = make_tracks([0], [1], box, labels=[1])
    for lists, expected in (
        ({}, 0.5),
        ({"not_exhaustive_labels": [1]}, 1.0),
    ):
        metric = TrackMap("tao", "box")
        predictions = make_tracks([0, 0], [1, 2], far + box, labels=[1, 1], scores=[0.9, 0.8])
        metric.add(Video(name="a", num_frames=1, gt=gt, predictions=predictions), **lists)
        assert metric.scores()[1]["AP_all"] == pytest.approx(expected)
    for negative, expected in ((), 1.0), ((1,), 0.5):
        metric = TrackMap("tao", "box")
        metric.add(
            Video(name="a", num_frames=1, gt=gt, predictions=make_tracks([0], [1], box, labels=[1], scores=[0.8]))
        )
        other = make_tracks([0], [1], box, labels=[1], scores=[0.9])
        metric.add(Video(name="b", num_frames=1, gt=no_tracks(), predictions=other), negative_labels=negative)
        assert metric.scores()[1]["AP_all"] == pytest.approx(expected)
    assert metric.scores("b") == {}


# ------------------------------------------------------------------------------------------------------- track IoU


def test_iou_in_space_and_time_by_hand():
    """Frame 0: 50 of 100 + 100 shared; frame 1: only ground truth, 100; frame 2: only the prediction, 400."""
    gt = make_tracks([0, 1], [5, 5], [[0, 0, 10, 10], [0, 0, 10, 10]])
    predictions = make_tracks([0, 2], [9, 9], [[0, 5, 10, 15], [0, 0, 20, 20]])
    video = Video(name="a", num_frames=3, gt=gt, predictions=predictions)
    rows, columns, iou = track_ious(video, track_table(gt, "box"), track_table(predictions, "box"), "box")
    assert (rows.tolist(), columns.tolist()) == ([0], [0])
    assert iou.tolist() == [50 / (150 + 100 + 400)]


def test_iou_of_masks_is_that_of_their_pixels():
    height, width = 40, 50
    video = with_masks(make_video(seed=3, num_frames=6, num_objects=5, height=height, width=width), height, width)
    gt, predictions = track_table(video.gt, "mask"), track_table(video.predictions, "mask")
    rows, columns, iou = track_ious(video, gt, predictions, "mask")
    found = dict(zip(zip(rows.tolist(), columns.tolist()), iou.tolist()))

    def volume(tracks: Tracks, number: int) -> np.ndarray:
        pixels = np.zeros((video.num_frames, height, width), bool)
        for row in np.flatnonzero(tracks.ids == number).tolist():
            pixels[tracks.frames[row]] = coco.decode(tracks.masks[row])
        return pixels

    for i, a in enumerate(gt.ids.tolist()):
        for j, b in enumerate(predictions.ids.tolist()):
            one, other = volume(video.gt, a), volume(video.predictions, b)
            shared = int((one & other).sum())
            assert found.get((i, j), 0.0) == (shared / int((one | other).sum()) if shared else 0.0)
    assert len(found) > 5


def test_areas_of_many_masks():
    masks = [coco.encode(np.asfortranarray(np.arange(12).reshape(3, 4) < n % 13).astype(np.uint8)) for n in range(600)]
    assert mask_areas(masks).tolist() == [n % 13 for n in range(600)]
    assert mask_areas([]).tolist() == []


def test_mean_scores_are_numpys_to_the_last_bit():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(80), rng.integers(1, 300, 80))
    scores = rng.random(len(ids))
    tracks = make_tracks(np.arange(len(ids)), ids, np.zeros((len(ids), 4)), scores=scores)
    assert track_table(tracks, "box").scores.tolist() == [np.mean(scores[ids == number]) for number in range(80)]


# ----------------------------------------------------------------------------------------------------- YouTube-VIS


class _OfTracks(COCOeval):
    """COCOeval on tracks, as the YouTube-VIS API adapts it: only the IoU differs."""

    track_ious: dict[tuple[int, int], float]

    def computeIoU(self, imgId, catId):
        gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-d["score"] for d in dt], kind="mergesort")[: self.params.maxDets[-1]]
        if not gt or not dt:
            return []
        return np.array([[self.track_ious.get((dt[i]["id"], g["id"]), 0.0) for g in gt] for i in order])


def _literal_iou(a: Tracks, i: int, b: Tracks, j: int) -> float:
    shared = total = 0.0
    first = {int(a.frames[row]): a.boxes[row] for row in np.flatnonzero(a.ids == i)}
    second = {int(b.frames[row]): b.boxes[row] for row in np.flatnonzero(b.ids == j)}
    for frame in first.keys() | second.keys():
        areas = [
            (box[2] - box[0]) * (box[3] - box[1]) for side in (first, second) if (box := side.get(frame)) is not None
        ]
        common = 0.0
        if len(areas) == 2:
            one, other = first[frame], second[frame]
            common = max(min(one[2], other[2]) - max(one[0], other[0]), 0) * max(
                min(one[3], other[3]) - max(one[1], other[1]), 0
            )
        shared += common
        total += sum(areas) - common
    return shared / total if total > 0 else 0.0


def _with(table: TrackTable, **columns: Any) -> TrackTable:
    return replace(table, **{name: np.asarray(column) for name, column in columns.items()})


def _of_coco(cases: list[tuple[Video, TrackTable, TrackTable]], labels: tuple[int, ...]) -> _OfTracks:
    truths, guesses, ious = [], [], {}
    for number, (video, gt, predictions) in enumerate(cases, start=1):
        begin_gt, begin = len(truths) + 1, len(guesses) + 1
        for side, table, begin_side in ((truths, gt, begin_gt), (guesses, predictions, begin)):
            side += [
                {
                    "id": begin_side + i,
                    "image_id": number,
                    "category_id": int(table.labels[i]),
                    "area": float(table.areas[i]),
                    "score": float(table.scores[i]),
                    "iscrowd": int(table.ignored[i]),
                    "bbox": [0, 0, 1, 1],
                }
                for i in range(len(table))
            ]
        for i, a in enumerate(predictions.ids.tolist()):
            for j, b in enumerate(gt.ids.tolist()):
                ious[begin + i, begin_gt + j] = _literal_iou(video.predictions, a, video.gt, b)
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (truths, guesses):
            side = COCO()
            side.dataset = {
                "images": [{"id": i + 1} for i in range(len(cases))],
                "categories": [{"id": label, "name": str(label)} for label in labels],
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        judge = _OfTracks(*sides, "bbox")
        judge.track_ious = ious
        judge.params.areaRng = [[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


@pytest.mark.parametrize("seed", range(6))
def test_youtube_vis_is_cocoevals(seed):
    """Crowds, equal scores, more than a hundred tracks, classes without ground truth, tracks without any box."""
    labels = (1, 2, 3, 4)
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(4):
        video = make_video(
            str(number),
            seed=100 * seed + number,
            num_frames=8,
            num_objects=(6, 40, 12, 1)[number],
            labels=labels[:3] if number < 3 else (1,),
            faults=FEW_FAULTS,
            steps=0.125 if seed % 2 else 100,
        )
        if number == 1:
            copies = [replace(video.predictions, ids=video.predictions.ids + 1000 * i) for i in range(4)]
            joined = {
                name: np.concatenate([getattr(copy, name) for copy in copies])
                for name in ("frames", "ids", "boxes", "labels", "scores")
            }
            video = replace(video, predictions=make_tracks(**joined))
        if number == 3:
            video = replace(video, predictions=replace(video.predictions, labels=video.predictions.labels * 0 + 4))
        gt, predictions = track_table(video.gt, "box"), track_table(video.predictions, "box")
        gt = _with(
            gt,
            areas=rng.choice([100.0, 128.0**2, 20_000.0, 256.0**2, 1e5], len(gt)),
            ignored=rng.random(len(gt)) < 0.2,
        )
        predictions = _with(
            predictions,
            areas=rng.choice([100.0, 128.0**2, 20_000.0, 256.0**2, 1e5], len(predictions)),
            scores=np.round(predictions.scores, 1),
        )
        extra = {name: getattr(predictions, name)[:1] for name in TrackTable.__dataclass_fields__} | {"ids": [99_999]}
        columns = {
            name: np.concatenate([getattr(predictions, name), extra[name]]) for name in TrackTable.__dataclass_fields__
        }
        cases.append((video, gt, TrackTable(**columns)))
    judge = _of_coco(cases, labels)
    metric = TrackMap("youtube-vis", "box")
    for video, gt, predictions in cases:
        metric.add(video, gt_tracks=gt, predicted_tracks=predictions)
    scores = metric.scores()
    total = average_precision(scores.values())
    expected = dict(
        zip(
            ("AP", "AP50", "AP75", "AP_s", "AP_m", "AP_l", "AR1", "AR10", "AR100", "AR_s", "AR_m", "AR_l"),
            judge.stats.tolist(),
        )
    )
    for name, value in expected.items():
        assert total[name] == pytest.approx(None if value == -1 else value, abs=1e-12), name
    assert total["AP"] > 0.02
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    for k, label in enumerate(labels):
        row = scores.get(label)
        if row is None:
            assert (precision[:, :, k] == -1).all()
            continue
        for a, (ap, ar) in enumerate((("AP", "AR100"), ("AP_s", "AR_s"), ("AP_m", "AR_m"), ("AP_l", "AR_l"))):
            for name, values in ((ap, precision[:, :, k, a, 2]), (ar, recall[:, k, a, 2])):
                expected_value = float(values.mean())
                assert row[name] == pytest.approx(None if expected_value == -1 else expected_value, abs=1e-12)


def test_every_track_of_perfect_results_is_right():
    video = make_video(seed=8, num_frames=10, num_objects=12, labels=(1, 2))
    video = replace(video, predictions=video.gt)
    metric = TrackMap("youtube-vis", "box")
    metric.add(video)
    total = average_precision(metric.scores().values())
    assert {name: value for name, value in total.items() if value is not None and not name.startswith("AR1")} == (
        pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "AP_s", "AR_s"), 1.0))
    )
    assert total["AR100"] == 1 and 0 < total["AR1"] < 1 and total["AP_l"] is None


def test_occlusion_ranges_of_ground_truth():
    """Three objects hidden by .2, .25 and .6, of which the first and the last are found; .25 belongs to two ranges."""
    frames, ids, boxes = [0, 0, 0], [1, 2, 3], [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]]
    gt = make_tracks(frames, ids, boxes)
    predictions = make_tracks([0, 0], [1, 2], [boxes[0], boxes[2]], scores=[0.4, 0.6])
    metric = TrackMap("youtube-vis", "box")
    table = _with(track_table(gt, "box"), occlusion=[0.2, 0.25, 0.6])
    metric.add(Video(name="a", num_frames=1, gt=gt, predictions=predictions), gt_tracks=table)
    row = metric.scores()[1]
    assert (row["AR_so"], row["AR_mo"], row["AR_ho"]) == (0.5, 0.0, 1.0)
    assert (row["AP_so"], row["AP_mo"], row["AP_ho"]) == (pytest.approx(51 / 101), 0.0, pytest.approx(1.0))
    metric = TrackMap("youtube-vis", "box")
    metric.add(Video(name="a", num_frames=1, gt=gt, predictions=predictions))
    assert metric.scores()[1]["AP_so"] is None and metric.scores()[1]["AP"] == pytest.approx(67 / 101)


@pytest.mark.parametrize("protocol", ["tao", "youtube-vis"])
@pytest.mark.parametrize("iou", ["box", "mask"])
def test_nothing_to_score(protocol, iou):
    metric = TrackMap(protocol, iou)
    assert metric.scores() == {} and average_precision([]) == {}
    empty = replace(no_tracks(), masks=np.zeros(0, object))
    metric.add(Video(name="a", num_frames=3, gt=empty, predictions=empty))
    assert metric.scores() == {}
    video = with_masks(make_video(seed=1, num_frames=3, num_objects=2, height=30, width=40), 30, 40)
    metric.add(replace(video, gt=empty))
    assert metric.scores() == {}
    metric.add(replace(video, name="b", predictions=empty))
    (row,) = metric.scores().values()
    assert set(row) == set(metric.names) and set(row.values()) == {0.0, None}
    assert metric.scores("a") == {}
