"""YouTube-VIS, OVIS and UVO from JSON: the published numbers of SA-Co's toy set, TrackEval's, and broken files."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from tests.evaluation.make_tracks import Faults, make_video, with_masks
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.benchmarks import youtubevis
from trackmill.pipeline.evaluation.readers.youtube_vis import read_results, read_truth
from trackmill.pipeline.evaluation.readers.youtube_vis_rows import read_tracks
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.tracks import Tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.schemas.masks import parse_counts

HEIGHT, WIDTH = 60, 80
FAULTS = Faults(miss=0.1, miss_hidden=0.2, jitter=0.02, doubled=0.2, switch=0.01, invented=0.3, wrong_label=0)


def make_vis(
    seed: int = 0, num_videos: int = 3, num_frames: int = 8, num_objects: int = 6, labels: tuple[int, ...] = (3, 7, 9)
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results in YouTube-VIS form; the last category has neither, the first video no prediction."""
    gt: dict[str, Any] = {
        "videos": [],
        "annotations": [],
        "categories": [{"id": label, "name": f"kind {label}"} for label in (*labels, 11)],
    }
    results: list[dict[str, Any]] = []
    for number in range(num_videos, 0, -1):
        video = make_video(
            f"clip{number}",
            seed=seed * 100 + number,
            num_frames=num_frames,
            num_objects=num_objects,
            height=HEIGHT,
            width=WIDTH,
            labels=labels,
            faults=FAULTS,
            steps=1,
        )
        video = with_masks(video, HEIGHT, WIDTH)
        names = [f"clip{number}/{frame:05d}.jpg" for frame in range(num_frames)]
        size = {"height": HEIGHT, "width": WIDTH}
        gt["videos"].append({"id": number, "length": num_frames, "file_names": names, **size})
        for track in _by_track(video.gt, num_frames):
            gt["annotations"].append(
                {"id": len(gt["annotations"]) + 1, "video_id": number, "iscrowd": 0, **size, **track}
            )
        results += [
            {"video_id": number, "score": float(np.round(0.2 + 0.7 * np.random.default_rng(i).random(), 2)), **track}
            for i, track in enumerate(_by_track(video.predictions, num_frames) if number > 1 else [])
        ]
    return gt, results


def _by_track(tracks: Tracks, num_frames: int) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for i, number in enumerate(tracks.ids.tolist()):
        mask = tracks.masks[i]
        area = int(coco.area(mask))
        if not area:
            continue
        nothing = {"segmentations": None, "bboxes": None, "areas": None}
        track = found.setdefault(
            number, {"category_id": int(tracks.labels[i]), **{key: [None] * num_frames for key in nothing}}
        )
        frame = int(tracks.frames[i])
        track["segmentations"][frame] = {"size": mask["size"], "counts": mask["counts"].decode()}
        track["bboxes"][frame] = [float(number) for number in coco.toBbox(mask)]
        track["areas"][frame] = area
    return list(found.values())


def _evaluate(folder: Path, gt: Any, results: Any, name: str = "youtubevis", **options: Any) -> Report:
    folder.mkdir(exist_ok=True)
    (folder / "gt.json").write_text(json.dumps(gt))
    (folder / "results.json").write_text(json.dumps(results))
    report = youtubevis.evaluate(name, str(folder / "gt.json"), str(folder / "results.json"), Options(**options))
    assert b"NaN" not in report.as_json() and b"Infinity" not in report.as_json()
    return report


# ------------------------------------------------------------------------------------------------ official numbers


@needs_data("saco_veval")
@pytest.mark.parametrize("iou", ["mask", "box"])
def test_published_numbers_of_saco(iou):
    root = DATA / "saco_veval" / "toy_saco_veval_sav_test"
    published = json.loads(Path(f"{root}_eval_res.json").read_text())
    totals, kind = published["dataset_results"], {"mask": "mask", "box": "bbox"}[iou]
    report = youtubevis.evaluate("youtubevis", f"{root}_gt.json", f"{root}_pred.json", Options(iou=iou))
    assert report.metrics["AP"] == pytest.approx(100 * totals[f"video_{kind}_mAP_50_95"], abs=1e-9)
    hota = {name: "HOTA.LocA" if name == "LocA" else name for name in ("HOTA", "DetA", "AssA", "LocA", "OWTA")}
    hota |= {name: name for name in ("DetRe", "DetPr", "AssRe", "AssPr")}
    for name, ours in hota.items():
        # The published tool compares boxes in single precision.
        assert report.metrics[ours] == pytest.approx(100 * totals[f"video_{kind}_all_phrase_{name}"], abs=1e-6)
    names = {row["id"]: row["name"] for row in json.loads(Path(f"{root}_gt.json").read_text())["categories"]}
    rows = [row for row in published["video_np_results"] if f"{kind}_HOTA" in row]
    assert len(rows) == 7
    for row in rows:
        for name, ours in hota.items():
            stored = report.classes[names[row["category_id"]]][ours]
            assert stored == pytest.approx(100 * row[f"{kind}_{name}"], abs=1e-6)
    if iou == "mask":
        teta = {"TETA": "teta", "LocA": "loc_a", "AssocA": "assoc_a", "ClsA": "cls_a", "LocRe": "loc_re"}
        teta |= {"LocPr": "loc_pr", "AssocRe": "assoc_re", "AssocPr": "assoc_pr", "ClsRe": "cls_re", "ClsPr": "cls_pr"}
        for name, key in teta.items():
            assert round(report.metrics[name], 3) == totals[f"video_mask_{key}"], name
    assert report.settings["score_threshold"] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_trackevals(seed, tmp_path):
    gt, results = make_vis(seed=seed, num_videos=4)
    report = _evaluate(tmp_path / "ours", gt, results, metrics=("trackmap", "hota", "clear", "identity"))
    by_class, by_video, pooled = _trackeval(gt, results, tmp_path / "theirs")
    expected = [by_class["kind 3"], by_class["kind 7"], by_class["kind 9"], pooled, *by_video.values()]
    rows = [*report.classes.values(), report.metrics, *report.sequences.values()]
    assert list(report.classes) == ["kind 3", "kind 7", "kind 9"]
    assert sorted(report.sequences) == sorted(by_video)
    rows[4:] = [report.sequences[name] for name in by_video]
    for row, official in zip(rows, expected, strict=True):
        for name in ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA"):
            assert row[name] == pytest.approx(100 * float(np.mean(official["HOTA"][name])), abs=1e-9), name
        for name in ("IDSW", "Frag", "MT", "PT", "ML"):
            assert row[name] == official["CLEAR"][name], name
        assert row["MOTA"] == pytest.approx(100 * official["CLEAR"]["MOTA"], abs=1e-9)
        assert row["IDF1"] == pytest.approx(100 * official["Identity"]["IDF1"], abs=1e-9)
    for name, row in report.classes.items():
        for ours, theirs in {"AP": "AP_all", "AP_s": "AP_area_s", "AP_m": "AP_area_m", "AR100": "AR_all"}.items():
            value = float(np.mean(by_class[name]["TrackMAP"][theirs]))
            assert row[ours] == pytest.approx(None if value == -1 else 100 * value, abs=1e-9), (name, ours)
    values = [row["AP"] for row in report.classes.values() if row["AP"] is not None]
    assert report.metrics["AP"] == pytest.approx(float(np.mean(values)), abs=1e-9) and report.metrics["AP"] > 5
    curves = report.curves[next(iter(by_video))]
    assert np.mean(curves["HOTA"]) == pytest.approx(rows[4]["HOTA"])
    assert sum(sum(line.idsw) for line in report.timelines.values()) == report.metrics["IDSW"]


def _trackeval(gt: dict, results: list, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Results by class, by video (classes pooled), and of everything pooled."""
    trackeval = pytest.importorskip("trackeval")
    # TrackEval takes only uncompressed runs in ground truth, as the data set has them.
    for part, content in (("gt/youtube_vis_val", _uncompressed(gt)), ("trackers/youtube_vis_val/ours/data", results)):
        (folder / part).mkdir(parents=True)
        (folder / part / "file.json").write_text(json.dumps(content))
    config = {"GT_FOLDER": f"{folder}/gt/", "TRACKERS_FOLDER": f"{folder}/trackers/", "SPLIT_TO_EVAL": "val"}
    quiet = {"PRINT_CONFIG": False}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = trackeval.datasets.YouTubeVIS(config | quiet)
        # A track with the number 0 counts as no match there; the official API counts tracks from 1.
        dataset.global_tid_counter = 1
        metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
        ranges = {"USE_TIME_RANGES": False, "AREA_RANGES": [[0, 128**2], [128**2, 256**2], [256**2, 1e10]]}
        metrics.append(trackeval.metrics.TrackMAP(quiet | ranges))
        each: dict[str, dict[str, dict[str, Any]]] = {}
        for name in sorted(dataset.seq_list):
            raw = dataset.get_raw_seq_data("ours", name)
            for label in dataset.class_list[:3]:
                data = dataset.get_preprocessed_seq_data(raw, label)
                each.setdefault(label, {})[name] = {m.get_name(): m.eval_sequence(data) for m in metrics}
        by_class = {
            label: {m.get_name(): m.combine_sequences({n: r[m.get_name()] for n, r in found.items()}) for m in metrics}
            for label, found in each.items()
        }
        by_video = {
            name: {
                m.get_name(): m.combine_classes_det_averaged(
                    {c: found[name][m.get_name()] for c, found in each.items()}
                )
                for m in metrics[:3]
            }
            for name in sorted(dataset.seq_list)
        }
        pooled = {
            m.get_name(): m.combine_classes_det_averaged({c: found[m.get_name()] for c, found in by_class.items()})
            for m in metrics[:3]
        }
    return by_class, by_video, pooled


# ----------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("name", ["youtubevis", "ovis", "uvo"])
@pytest.mark.parametrize("iou", ["mask", "box"])
def test_ground_truth_against_itself_is_perfect(name, iou, tmp_path):
    gt, _ = make_vis(seed=5)
    report = _evaluate(tmp_path, gt, gt, name, iou=iou, metrics=("trackmap", "hota", "teta", "clear", "identity"))
    for row in [report.metrics, *report.sequences.values(), *report.classes.values()]:
        for score in ("AP", "AP50", "AR100", "HOTA", "DetA", "AssA", "HOTA.LocA", "TETA", "LocA", "MOTA", "IDF1"):
            assert row[score] == pytest.approx(100), score
        assert row["IDSW"] == row["FN"] == row["FP"] == 0
    assert (report.benchmark, report.iou) == (name, iou)


def test_masks_in_any_form_are_the_same(tmp_path):
    gt, results = make_vis(seed=6, num_videos=2)
    expected = _evaluate(tmp_path, gt, results).metrics
    gt = _uncompressed(gt)
    assert all(sum(mask["counts"]) == HEIGHT * WIDTH for mask in filter(None, gt["annotations"][0]["segmentations"]))
    for track in results:
        track["segmentations"] = [
            mask or {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]} for mask in track["segmentations"]
        ]
        del track["areas"], track["bboxes"]
    assert _evaluate(tmp_path, gt, results).metrics == expected


def _uncompressed(gt: dict[str, Any]) -> dict[str, Any]:
    gt = copy.deepcopy(gt)
    for track in gt["annotations"]:
        for mask in filter(None, track["segmentations"]):
            mask["counts"] = parse_counts(mask["counts"]).tolist()
    return gt


def test_polygons_are_read(tmp_path):
    gt, _ = make_vis(num_videos=1)
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    gt["annotations"] = [
        {"id": 1, "video_id": 1, "category_id": 3, "iscrowd": 0, "segmentations": [square, None, [], *[square] * 5]}
    ]
    track = {"video_id": 1, "category_id": 3, "score": 0.9, "segmentations": [square] * 3 + [None] * 5}
    report = _evaluate(tmp_path, gt, [track])
    assert (report.metrics["GT"], report.metrics["Dets"]) == (6, 3)
    # One frame of eight is shared, so no threshold is reached.
    assert report.metrics["AP"] == 0 and report.metrics["DetRe"] == pytest.approx(100 / 6)


def test_boxes_are_those_of_the_masks(tmp_path):
    gt, results = make_vis(seed=7)
    expected = _evaluate(tmp_path, gt, results, iou="box")
    for track in [*gt["annotations"], *results]:
        del track["bboxes"]
    without = _evaluate(tmp_path, gt, results, iou="box")
    assert without.metrics == expected.metrics and expected.metrics["AP"] > 5
    assert expected.metrics != _evaluate(tmp_path, gt, results, iou="mask").metrics


def test_boxes_of_zeros_are_absent(tmp_path):
    gt, results = make_vis(seed=7)
    expected = _evaluate(tmp_path, gt, results, iou="box").metrics
    for track in results:
        track["bboxes"] = [box or [0, 0, 0, 0] for box in track["bboxes"]]
        del track["segmentations"]
    assert _evaluate(tmp_path, gt, results, iou="box").metrics == expected


def test_uvo_has_one_class(tmp_path):
    gt, results = make_vis(seed=8)
    report = _evaluate(tmp_path, gt, results, "uvo")
    one, same = copy.deepcopy(gt), copy.deepcopy(results)
    one["categories"] = [{"id": 3, "name": "object"}]
    for track in [*one["annotations"], *same]:
        track["category_id"] = 3
    expected = _evaluate(tmp_path, one, same)
    assert report.metrics == expected.metrics and list(report.classes) == ["object"]
    assert report.metrics != _evaluate(tmp_path, gt, results).metrics
    for track in results:
        track["category_id"] = 12345
    del gt["categories"]
    assert _evaluate(tmp_path, gt, results, "uvo").metrics == expected.metrics


def test_ovis_occlusion_is_the_mean_of_the_worse_half(tmp_path):
    gt, _ = make_vis(num_videos=1, num_frames=5)
    track = gt["annotations"][0]
    track["occlusion"] = ["no_occlusion", "severe_occlusion", None, "slight_occlusion", "no_occlusion"]
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    truth = read_truth(str(tmp_path / "gt.json"))
    _, table = read_tracks(truth.entries[1], truth.videos[0], "mask", is_truth=True)
    assert table.occlusion[0] == 0.5 and np.isnan(table.occlusion[1:]).all()
    assert "AP_so" not in _evaluate(tmp_path, gt, gt, "ovis", sequences=()).metrics
    for track in gt["annotations"]:
        track["occlusion"] = ["slight_occlusion"] * 5
    metrics = _evaluate(tmp_path, gt, gt, "ovis").metrics
    assert (metrics["AP_so"], metrics["AP_mo"], metrics["AP_ho"]) == (pytest.approx(100), pytest.approx(100), None)


def test_areas_of_the_file_decide_the_range(tmp_path):
    gt, _ = make_vis(num_videos=1)
    for track in gt["annotations"]:
        track["areas"] = [20_000 if area else None for area in track["areas"]]
    report = _evaluate(tmp_path, gt, copy.deepcopy(gt))
    assert report.metrics["AP_s"] is None and report.metrics["AR_m"] == 100
    for track in gt["annotations"]:
        del track["areas"]
    assert _evaluate(tmp_path, gt, gt).metrics["AP_s"] == pytest.approx(100)


def test_crowds_are_ignored_by_track_map(tmp_path):
    gt, _ = make_vis(seed=3, num_videos=1)
    for track in gt["annotations"]:
        track["category_id"] = 3
    gt["annotations"][0]["iscrowd"] = 1
    results = [{**track, "score": 0.5} for track in copy.deepcopy(gt["annotations"])]
    results.append({**copy.deepcopy(results[0]), "score": 0.9})
    assert _evaluate(tmp_path, gt, results).metrics["AP"] == pytest.approx(100)
    gt["annotations"][0]["iscrowd"] = 0
    assert _evaluate(tmp_path, gt, results).metrics["AP"] < 99


def test_phrases_leave_out_unsure_predictions(tmp_path):
    """SA-Co's rule: HOTA from above .5 on, TETA from .5 on, AP takes all."""
    gt, results = make_vis(seed=9, num_videos=2)
    for i, track in enumerate(results):
        track["score"] = (0.5, 0.4, 0.6)[i % 3]
    plain = _evaluate(tmp_path, gt, results)
    phrases = _evaluate(tmp_path, gt | {"video_np_pairs": []}, results)
    above = _evaluate(tmp_path, gt, [track for track in results if track["score"] > 0.5])
    least = _evaluate(tmp_path, gt, [track for track in results if track["score"] >= 0.5])
    assert phrases.metrics["AP"] == plain.metrics["AP"]
    assert phrases.metrics["HOTA"] == above.metrics["HOTA"] != least.metrics["HOTA"]
    assert phrases.metrics["TETA"] == least.metrics["TETA"] != above.metrics["TETA"]
    assert "score_threshold" not in plain.settings


def test_teta_leaves_out_frames_without_ground_truth(tmp_path):
    gt, results = make_vis(seed=9, num_videos=2)
    for track in gt["annotations"]:
        for key in ("segmentations", "bboxes", "areas"):
            track[key][2] = None
    cut = copy.deepcopy(results)
    for track in cut:
        for key in ("segmentations", "bboxes", "areas"):
            track[key][2] = None
    whole, without = _evaluate(tmp_path, gt, results).metrics, _evaluate(tmp_path, gt, cut).metrics
    assert whole["TETA"] == without["TETA"] and whole["DetA"] < without["DetA"]


def test_folders_gzip_and_sequences(tmp_path):
    gt, results = make_vis(seed=10)
    expected = _evaluate(tmp_path / "plain", gt, results)
    for side in ("gt", "results"):
        (tmp_path / side).mkdir()
    for number in (1, 2, 3):
        part = {
            "videos": [video for video in gt["videos"] if video["id"] == number],
            "annotations": [track for track in gt["annotations"] if track["video_id"] == number],
            "categories": gt["categories"],
        }
        (tmp_path / "gt" / f"{number}.json").write_text(json.dumps(part))
        tracks = [track for track in results if track["video_id"] == number]
        (tmp_path / "results" / f"{number}.json.gz").write_bytes(gzip.compress(json.dumps(tracks).encode()))
    steps: list[tuple[int, int]] = []
    report = youtubevis.evaluate(
        "youtubevis", str(tmp_path / "gt"), str(tmp_path / "results"), Options(), lambda *step: steps.append(step)
    )
    assert report.metrics == expected.metrics and steps == [(1, 3), (2, 3), (3, 3)]
    chosen = _evaluate(tmp_path / "plain", gt, results, sequences=("clip2",))
    assert list(chosen.sequences) == ["clip2"] and chosen.metrics == chosen.sequences["clip2"]
    assert chosen.sequences["clip2"]["HOTA"] == expected.sequences["clip2"]["HOTA"]
    with pytest.raises(BadTracks, match="unknown sequence 'clip22'; did you mean 'clip2'"):
        _evaluate(tmp_path / "plain", gt, results, sequences=("clip22",))


def test_names_are_unique(tmp_path):
    gt, results = make_vis(num_videos=2)
    for video in gt["videos"]:
        video["name"] = "same"
    for category in gt["categories"][:2]:
        category["name"] = "twin"
    report = _evaluate(tmp_path, gt, results)
    assert list(report.sequences) == ["same (1)", "same (2)"]
    assert list(report.classes)[:2] == ["twin (3)", "twin (7)"]


# ----------------------------------------------------------------------------------------------------- bad and empty


def _empties(report: Report) -> list[dict[str, Any]]:
    return [report.metrics, *report.sequences.values(), *report.classes.values()]


def test_no_predictions(tmp_path):
    gt, _ = make_vis()
    report = _evaluate(tmp_path, gt, [])
    assert report.metrics["AP"] == report.metrics["HOTA"] == report.metrics["TETA"] == 0
    assert report.metrics["Dets"] == 0 and report.metrics["GT"] > 0
    assert any("no predictions" in note for note in report.notes)


def test_no_ground_truth(tmp_path):
    gt, results = make_vis()
    usual = set(_evaluate(tmp_path, gt, results).metrics)
    for empty in (gt | {"annotations": []}, {"videos": [], "annotations": [], "categories": []}):
        report = _evaluate(tmp_path, empty, results if empty["videos"] else [])
        assert set(report.metrics) == usual
        assert all(row["HOTA"] is row["AP"] is row["TETA"] is None for row in _empties(report))
        assert any("no objects in the ground truth" in note for note in report.notes)
    assert report.sequences == {} == report.classes


def test_a_video_and_a_class_without_ground_truth(tmp_path):
    gt, results = make_vis()
    gt["annotations"] = [track for track in gt["annotations"] if track["video_id"] != 2 and track["category_id"] != 7]
    report = _evaluate(tmp_path, gt, results)
    assert report.sequences["clip2"]["HOTA"] is report.sequences["clip2"]["AP"] is None
    assert report.classes["kind 7"]["AP"] is report.classes["kind 7"]["HOTA"] is None
    assert report.classes["kind 7"]["Dets"] > 0 and report.metrics["AP"] is not None
    assert any("clip2" in note for note in report.notes) and any("kind 7" in note for note in report.notes)
    assert any("no predictions in 1 of 3 videos: clip1" in note for note in report.notes)


def test_tracks_that_are_nowhere_count(tmp_path):
    gt, results = make_vis(seed=2, num_videos=1)
    results = [{**track, "score": 0.5} for track in copy.deepcopy(gt["annotations"])]
    nowhere = {"video_id": 1, "category_id": results[0]["category_id"], "score": 0.9, "segmentations": [None] * 8}
    report = _evaluate(tmp_path, gt, [*results, nowhere])
    assert report.metrics["AP"] < 99 and report.metrics["HOTA"] == pytest.approx(100)
    gt["annotations"].append({"id": 99, "iscrowd": 0, **{k: v for k, v in nowhere.items() if k != "score"}})
    assert _evaluate(tmp_path, gt, results).metrics["AR100"] < 99


def _set(*path: Any, to: Any) -> Any:
    def change(content: Any) -> Any:
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return content

    return change


def _without(*path: Any) -> Any:
    def change(content: Any) -> Any:
        place = content
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return content

    return change


BAD_TRUTH = {
    "a list": (lambda _: [], "should be an object"),
    "no videos": (_without("videos"), "videos: should be a list"),
    "no annotations": (_without("annotations"), "annotations: should be a list"),
    "categories of text": (_set("categories", to="cat"), "categories: should be a list"),
    "video of text": (_set("videos", 1, to="clip"), "videos[1]: should be an object"),
    "video without id": (_without("videos", 1, "id"), "videos[1]: has no 'id'"),
    "video twice": (_set("videos", 1, "id", to=3), "videos[1].id: video 3 is there twice"),
    "endless video": (_set("videos", 0, to={"id": 5, "length": 10**15}), "videos[0].length"),
    "huge frame": (_set("videos", 0, "height", to=1 << 40), "videos[0].height"),
    "file names": (_set("videos", 0, "file_names", to=[1, 2]), "videos[0].file_names"),
    "category name": (_set("categories", 0, "name", to=5), "categories[0].name"),
    "category twice": (_set("categories", 1, "id", to=3), "categories[1].id: category 3 is there twice"),
    "id of text": (_set("annotations", 2, "id", to="x"), "annotations[2].id: should be a whole number"),
    "id huge": (_set("annotations", 2, "id", to=(1 << 64) - 1), "annotations[2].id: should be a whole number"),
    "id twice": (_set("annotations", 2, "id", to=1), "annotations[2].id: id 1 is there twice"),
    "unknown video": (_set("annotations", 2, "video_id", to=77), "annotations[2].video_id: unknown video 77"),
    "unknown category": (_set("annotations", 2, "category_id", to=8), "annotations[2].category_id: unknown category 8"),
    "crowd of text": (_set("annotations", 2, "iscrowd", to="no"), "annotations[2].iscrowd"),
    "too few frames": (_set("annotations", 0, "segmentations", to=[None] * 7), "annotations[0].segmentations: has 7"),
    "masks of text": (
        _set("annotations", 0, "segmentations", to="x"),
        "annotations[0].segmentations: should be a list",
    ),
    "no masks": (_without("annotations", 0, "segmentations"), "annotations[0]: has no segmentations"),
    "broken mask": (
        _set("annotations", 0, "segmentations", 4, to={"size": [60, 80], "counts": "0"}),
        "[0].segmentations[4]",
    ),
    "areas negative": (_set("annotations", 0, "areas", 4, to=-3), "annotations[0].areas"),
    "areas of text": (_set("annotations", 0, "areas", 4, to="big"), "annotations[0].areas"),
    "occlusion": (
        _set("annotations", 0, "occlusion", to=["much"] * 8),
        "annotations[0].occlusion[0]: should be one of",
    ),
    "video without size": (_without("videos", 0, "height"), "need 'height' and 'width' of video 3"),
}

BAD_RESULTS = {
    "an object": (lambda tracks: {"tracks": tracks}, "results should be a list"),
    "a number": (_set(1, to=5), "[1]: should be an object"),
    "no video": (_without(1, "video_id"), "[1]: has no 'video_id'"),
    "unknown video": (_set(1, "video_id", to=9), "[1].video_id: unknown video 9; the ground truth has 1, 2, 3"),
    "unknown category": (_set(1, "category_id", to=8), "[1].category_id: unknown category 8"),
    "no score": (_without(1, "score"), "[1]: has no 'score'"),
    "score of text": (_set(1, "score", to="high"), "[1].score: should be a finite number"),
    "score of truth": (_set(1, "score", to=True), "[1].score: should be a finite number"),
    "too many frames": (_set(1, "segmentations", to=[None] * 9), "[1].segmentations: has 9 elements"),
    "other size": (
        _set(1, "segmentations", 3, to={"size": [80, 60], "counts": "0"}),
        "[1].segmentations[3].size: should be the frame's [height, width], [60, 80]",
    ),
    "no masks": (_without(1, "segmentations"), "[1]: has no segmentations; compare boxes with --iou box"),
}

BAD_BOXES = {
    "three numbers": ([1, 2, 3], "should be four numbers"),
    "text": (["1", 2, 3, 4], "should be four numbers"),
    "null inside": ([1, None, 3, 4], "should be four numbers"),
    "not a list": ("box", "should be four numbers"),
    "negative width": ([1, 2, -3, 4], "no negative width"),
    "far away": ([1e300, 2, 3, 4], "within"),
}


def _told(folder: Path, gt: Any, results: Any, **options: Any) -> str:
    with pytest.raises(BadTracks) as caught:
        _evaluate(folder, gt, results, **options)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("case", BAD_TRUTH)
def test_bad_ground_truth_is_named(case, tmp_path):
    gt, results = make_vis()
    change, expected = BAD_TRUTH[case]
    text = _told(tmp_path, change(gt), results)
    assert f"{tmp_path}/gt.json: " in text and expected in text


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_bad_results_are_named(case, tmp_path):
    gt, results = make_vis()
    change, expected = BAD_RESULTS[case]
    text = _told(tmp_path, gt, change(results))
    assert f"{tmp_path}/results.json: " in text and expected in text


@pytest.mark.parametrize("case", BAD_BOXES)
def test_bad_boxes_are_named(case, tmp_path):
    gt, results = make_vis()
    box, expected = BAD_BOXES[case]
    results[1]["bboxes"][3] = box
    text = _told(tmp_path, gt, results, iou="box")
    assert text.startswith(f"{tmp_path}/results.json: [1].bboxes[3]: ") and expected in text
    del results[1]["bboxes"], results[1]["segmentations"]
    assert "[1]: has neither 'bboxes' nor 'segmentations'" in _told(tmp_path, gt, results, iou="box")


def test_files_that_are_no_json(tmp_path):
    gt, _ = make_vis()
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "bad.json").write_text("video_id,score\n")
    with pytest.raises(BadTracks, match="not valid JSON"):
        youtubevis.evaluate("youtubevis", str(tmp_path / "gt.json"), str(tmp_path / "bad.json"), Options())
    with pytest.raises(FileNotFoundError):
        youtubevis.evaluate("youtubevis", str(tmp_path / "gt.json"), str(tmp_path / "none.json"), Options())


@pytest.mark.parametrize("iou", ["mask", "box"])
def test_damaged_files_end_in_one_line_or_in_a_report(iou, tmp_path):
    """Any value of the files replaced by another: `BadTracks` or numbers, never another error."""
    dice = random.Random(11)
    gt, results = make_vis(num_videos=2, num_frames=4, num_objects=3)
    gt["annotations"][0]["occlusion"] = ["no_occlusion"] * 4
    junk = [None, True, -1, 0, 3.5, 1e308, 1 << 63, "", "x", [], [[]], {}, {"size": [1]}, [1, 2, 3, 4, 5, 6]]
    refused = 0
    for _ in range(400):
        sides = copy.deepcopy([gt, results])
        place: Any = sides
        key: Any = dice.randrange(2)
        while isinstance(place[key], dict | list) and place[key] and dice.random() < 0.85:
            place = place[key]
            key = dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))
        place[key] = copy.deepcopy(dice.choice(junk))
        try:
            _evaluate(tmp_path, *sides, name=dice.choice(["youtubevis", "ovis", "uvo"]), iou=iou)
        except BadTracks as error:
            refused += 1
            assert "\n" not in str(error)
    assert 50 < refused < 390


def test_results_are_counted_from_one_and_over_files(tmp_path):
    gt, results = make_vis()
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "parts").mkdir()
    for i, part in enumerate((results[:3], results[3:])):
        (tmp_path / "parts" / f"{i}.json").write_text(json.dumps(part))
    truth = read_truth(str(tmp_path / "gt.json"))
    found = read_results(str(tmp_path / "parts"), truth)
    numbers = sorted(entry.id for entries in found.values() for entry in entries)
    assert numbers == list(range(1, len(results) + 1))
    assert [video.id for video in truth.videos] == [1, 2, 3]
    whole = replace(truth, entries={})
    assert read_results(str(tmp_path / "parts"), whole).keys() == found.keys()


def test_a_thousand_videos_of_endless_length(tmp_path: Path) -> None:
    videos = [
        {"id": number, "name": f"v{number}", "length": 1 << 24, "height": 9, "width": 9} for number in range(1000)
    ]
    truth = {"videos": videos, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with pytest.raises(
        BadTracks, match=r"gt\.json: its videos have 16,777,216,000 frames in all, more than 16,777,216"
    ):
        read_truth(str(tmp_path / "gt.json"))
