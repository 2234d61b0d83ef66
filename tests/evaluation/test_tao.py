"""TAO, open-vocabulary TAO and OVT-B from files: official numbers, TrackEval on made cases, and what is told."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.evaluation.make_tao import ALIAS, NAMES, RARE, Json, make_files, make_videos, write_files
from tests.evaluation.teta_reference import teta_by_loops
from tests.fixtures import packed
from trackmill.pipeline.evaluation.benchmarks.tao import evaluate
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.tracks import Video, make_tracks
from trackmill.pipeline.formats.errors import BadTracks

EVERYTHING = ("teta", "trackmap", "hota", "clear", "identity")
RATIOS = {
    **{name: f"HOTA.{name}" for name in ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "OWTA")},
    "HOTA.LocA": "HOTA.LocA",
    **{name: f"CLEAR.{name}" for name in ("MOTA", "MOTP", "MODA", "sMOTA")},
    **{name: f"Identity.{name}" for name in ("IDF1", "IDP", "IDR")},
    "TrackAP": "TrackMAP.AP_all",
    "TrackAR": "TrackMAP.AR_all",
}
COUNTS = {
    **{name: f"CLEAR.{name}" for name in ("IDSW", "Frag", "MT", "PT", "ML")},
    **{name: f"CLEAR.CLR_{name}" for name in ("TP", "FN", "FP")},
    **{name: f"Identity.{name}" for name in ("IDTP", "IDFN", "IDFP")},
}


def run(folder: Path, truth: Json, results: Any, name: str = "tao", **options: Any) -> Report:
    gt, found = write_files(folder, truth, results)
    return evaluate(name, gt, found, Options(**options))


def literal_videos(truth: Json, results: list[Json], most: int = 0) -> list[Video]:
    """Videos by the official reader's rules, row by row."""
    alias = {merged: label for label, merged in ALIAS.items()}
    images = {image["id"]: image for image in truth["images"]}
    if most:
        of_image: dict[int, list[Json]] = {}
        for row in results:
            of_image.setdefault(row["image_id"], []).append(row)
        for image, rows in of_image.items():
            if len(rows) > most:
                of_image[image] = sorted(rows, key=lambda row: row["score"], reverse=True)[:most]
        results = [row for rows in of_image.values() for row in rows]
    videos = []
    for about in truth["videos"]:
        annotated = {row["image_id"] for row in truth["annotations"] if row["video_id"] == about["id"]}
        order = sorted(annotated, key=lambda image: images[image]["frame_index"])
        steps = {image: step for step, image in enumerate(order)}

        def tracks(rows: list[Json], steps: dict[int, int] = steps) -> Any:
            rows = [row for row in rows if row["image_id"] in steps]
            rows.sort(key=lambda row: steps[row["image_id"]])
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
            masks = [
                {"size": row["segmentation"]["size"], "counts": row["segmentation"]["counts"].encode()}
                for row in rows
                if "segmentation" in row
            ]
            return make_tracks(
                [steps[row["image_id"]] for row in rows],
                [row["track_id"] for row in rows],
                np.reshape(boxes, (-1, 4)),
                [alias.get(row["category_id"], row["category_id"]) for row in rows],
                masks=masks or None,
            )

        videos.append(
            Video(
                name=about["name"].replace("/", "-"),
                num_frames=len(order),
                gt=tracks(truth["annotations"]),
                predictions=tracks(results),
            )
        )
    return videos


def teta_of(report_row: Any) -> dict[str, Any]:
    return {
        name: report_row[name] for name in ("TETA", "LocA", "AssocA", "ClsA", "LocRe", "LocPr", "AssocRe", "AssocPr")
    } | {name: report_row[name] for name in ("ClsRe", "ClsPr")}


def percent(scores: dict[str, float]) -> Any:
    return pytest.approx({name: 100 * value for name, value in scores.items()}, rel=1e-12, abs=1e-12)


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@pytest.mark.parametrize("iou", ["box", "mask"])
def test_official_teta(tmp_path: Path, iou: str) -> None:
    case = packed.unpack("teta/basic", tmp_path)
    report = evaluate("tao-ov", str(case / "gt.json"), str(case / "pred.json"), Options(iou=iou, metrics=("teta",)))
    expected = json.loads((case / f"expected_{iou}.json").read_text())
    assert set(report.classes) == set(expected["classes"])
    for name, row in expected["classes"].items():
        del row["counts"]
        assert report.classes[name] == pytest.approx(row, rel=1e-9), name
    assert report.metrics == pytest.approx(expected["average"], rel=1e-9)
    assert report.base == pytest.approx(expected["base"], rel=1e-9)
    assert report.novel == pytest.approx(expected["novel"], rel=1e-9)
    for title in ("base", "novel"):
        rows = [expected["printed_5_digits"][name] for name in expected[f"{title}_classes"]]
        printed = ", ".join(
            f"{score} {np.mean([float(row[score]) for row in rows]):.3f}"
            for score in ("TETA", "LocA", "AssocA", "ClsA")
        )
        assert any(note.startswith(title) and note.endswith(printed) for note in report.notes), printed
    assert set(report.sequences) == set(expected["per_video"])


def test_official_track_map_and_hota(tmp_path: Path) -> None:
    case = packed.unpack("teta/basic", tmp_path)
    options = Options(metrics=EVERYTHING, max_detections=300)
    report = evaluate("tao", str(case / "gt.json"), str(case / "pred.json"), options)
    expected = json.loads((case / "expected_tao_track_map_hota.json").read_text())
    for name, row in {**report.classes, "cls_comb_cls_av": report.metrics}.items():
        wanted = expected[name]
        found = {key: row[key] for key in RATIOS}
        assert found == pytest.approx({key: 100 * wanted[official] for key, official in RATIOS.items()}, rel=1e-9)
        assert {key: row[key] for key in COUNTS} == {key: wanted[official] for key, official in COUNTS.items()}
        each = wanted["TrackMAP.AP_all.per_threshold"]
        assert [row["TrackAP50"], row["TrackAP75"]] == pytest.approx([100 * each[0], 100 * each[5]], rel=1e-9)


@pytest.mark.parametrize("seed, most, masks", [(0, 0, False), (1, 3, False), (2, 0, True), (3, 2, True)])
def test_teta_of_made_files_equals_the_rule_in_loops(tmp_path: Path, seed: int, most: int, masks: bool) -> None:
    truth, results = make_files(make_videos(seed, masks=masks), seed)
    iou = "mask" if masks else "box"
    report = run(tmp_path, truth, results, "tao-ov", iou=iou, metrics=("teta",), max_detections=most)
    videos = literal_videos(truth, results, most)
    labels = sorted({label for video in videos for label in video.gt.labels.tolist()})
    wanted = teta_by_loops(videos, labels, iou)
    assert set(report.classes) == {NAMES[label] for label in labels}
    for label in labels:
        assert teta_of(report.classes[NAMES[label]]) == percent(wanted[label]), NAMES[label]
    assert report.metrics == percent(mean(list(wanted.values())))
    assert report.base == percent(mean([wanted[label] for label in labels if NAMES[label] not in RARE]))
    assert report.novel == percent(mean([wanted[label] for label in labels if NAMES[label] in RARE]))
    for video in videos:
        present = set(video.gt.labels.tolist())
        alone = teta_by_loops([video], labels, iou)
        assert report.sequences[video.name] == percent(mean([alone[label] for label in labels if label in present]))


def trackeval_rows(folder: Path, truth: Json, results: list[Json], most: int) -> dict[str, dict[str, Any]]:
    """TrackEval's own TAO reader and metrics, by class, fractions."""
    trackeval = pytest.importorskip("trackeval", reason="trackeval 1.3.0 is the oracle; install the dev extra")
    write_files(folder, truth, results)
    tracker = folder / "trackers" / "ours" / "data"
    tracker.mkdir(parents=True)
    (tracker / "results.json").write_bytes(orjson.dumps(results))
    silent = dict.fromkeys(
        ["PRINT_RESULTS", "PRINT_CONFIG", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES", "TIME_PROGRESS"], False
    )
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = trackeval.datasets.TAO(
            {
                "GT_FOLDER": str(folder / "gt"),
                "TRACKERS_FOLDER": str(folder / "trackers"),
                "TRACKERS_TO_EVAL": ["ours"],
                "MAX_DETECTIONS": most,
                "PRINT_CONFIG": False,
            }
        )
        quiet = {"PRINT_CONFIG": False}
        metrics = trackeval.metrics
        tools = [
            metrics.HOTA(),
            metrics.CLEAR(dict(quiet)),
            metrics.Identity(dict(quiet)),
            metrics.TrackMAP(dict(quiet)),
        ]
        evaluator = trackeval.Evaluator({**silent, "LOG_ON_ERROR": None, "BREAK_ON_ERROR": True})
        found = evaluator.evaluate([dataset], tools)[0]["TAO"]["ours"]["COMBINED_SEQ"]
    return {
        name: {f"{tool}.{field}": value for tool, fields in row.items() for field, value in fields.items()}
        for name, row in found.items()
    }


@pytest.mark.parametrize("seed, most", [(0, 0), (1, 0), (2, 3), (3, 300), (4, 1)])
def test_other_families_of_made_files_equal_trackeval(tmp_path: Path, seed: int, most: int) -> None:
    truth, results = make_files(make_videos(seed, num_objects=3 + seed), seed)
    wanted = trackeval_rows(tmp_path, truth, results, most)
    report = run(tmp_path, truth, results, metrics=EVERYTHING, max_detections=most)
    del wanted["cls_comb_det_av"]
    for name, row in {**report.classes, "cls_comb_cls_av": report.metrics}.items():
        official = wanted.pop(name)
        for key, field in RATIOS.items():
            value = float(np.mean(official[field]))
            absent = key.startswith("Track") and value <= -1
            assert row[key] == (None if absent else pytest.approx(100 * value, rel=1e-9, abs=1e-9)), (name, key)
        for key, field in COUNTS.items():
            assert row[key] == official[field], (name, key)
    assert not wanted


def test_hota_alone_keeps_its_loca(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    alone = run(tmp_path, truth, results, metrics=("hota",)).metrics
    both = run(tmp_path, truth, results, metrics=("hota", "teta")).metrics
    assert alone["LocA"] == both["HOTA.LocA"] != both["LocA"] and "TETA" not in alone


def test_perfect_results(tmp_path: Path) -> None:
    truth, _ = make_files(make_videos(2), 2)
    report = run(tmp_path, truth, truth, metrics=EVERYTHING)
    for name in ("TETA", "LocA", "AssocA", "ClsA", "TrackAP", "HOTA", "MOTA", "IDF1"):
        assert report.metrics[name] == pytest.approx(100, abs=1e-9), name
    assert report.metrics["FP"] == report.metrics["FN"] == report.metrics["IDSW"] == 0


def test_settings_and_notes_name_every_choice(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    plain = run(tmp_path, truth, results)
    assert plain.settings["class_vote"] is False and plain.settings["max_detections"] == "all"
    assert plain.settings["metrics"] == ["teta", "trackmap"] and plain.base is None
    voted = run(tmp_path, truth, results, class_vote=True, max_detections=2)
    assert voted.settings["class_vote"] is True and "smallest id" in voted.settings["class_vote_rule"]
    assert voted.settings["max_detections"] == 2
    assert voted.metrics["ClsA"] != plain.metrics["ClsA"]
    annotated = {row["image_id"] for row in truth["annotations"]}
    outside = sum(row["image_id"] not in annotated for row in results)
    assert outside > 0 and any(note.startswith(f"{outside} predictions on images without") for note in plain.notes)
    assert not any("TAO's Track mAP takes 300" in note for note in plain.notes)


def test_more_predictions_than_track_map_takes(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    results += [{**results[0], "track_id": 10_000 + i} for i in range(300)]
    assert any("TAO's Track mAP takes 300" in note for note in run(tmp_path, truth, results).notes)
    assert not any("takes 300" in note for note in run(tmp_path, truth, results, max_detections=300).notes)
    assert not any("takes 300" in note for note in run(tmp_path, truth, results, metrics=("teta",)).notes)


def test_sequences_and_progress(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    gt, found = write_files(tmp_path, truth, results)
    seen: list[tuple[int, int]] = []
    options = Options(sequences=("made/A/video_001", "made-B-video_002"), metrics=("teta",))
    report = evaluate("tao", gt, found, options, lambda done, whole: seen.append((done, whole)))
    assert list(report.sequences) == ["made-A-video_001", "made-B-video_002"] and seen == [(1, 2), (2, 2)]
    kept = {video["id"] for video in truth["videos"][1:]}
    images = {image["id"] for image in truth["images"] if image["video_id"] in kept}
    part = {
        **truth,
        "videos": truth["videos"][1:],
        "images": [image for image in truth["images"] if image["id"] in images],
        "annotations": [row for row in truth["annotations"] if row["image_id"] in images],
    }
    alone = run(tmp_path / "part", part, [row for row in results if row["image_id"] in images], metrics=("teta",))
    assert alone.metrics == report.metrics and alone.classes == report.classes


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


@pytest.mark.parametrize("name", ["tao", "tao-ov", "ovtb"])
@pytest.mark.parametrize("lacking", ["results", "annotations", "everything", "one video"])
def test_no_objects(tmp_path: Path, name: str, lacking: str) -> None:
    truth, results = make_files(make_videos(1), 1)
    if lacking == "results":
        results = []
    elif lacking == "annotations":
        truth["annotations"] = []
    elif lacking == "everything":
        truth |= {"videos": [], "images": [], "annotations": [], "categories": []}
        results = []
    else:
        truth["annotations"] = [row for row in truth["annotations"] if row["video_id"] != 5]
    report = run(tmp_path, truth, results, name, metrics=EVERYTHING)
    assert all(map(math.isfinite, numbers(orjson.loads(report.as_json()))))
    if lacking in ("annotations", "everything"):
        assert report.metrics["TETA"] is report.metrics["HOTA"] is report.metrics["TrackAP"] is None
        assert "no classes with ground truth: nothing can be scored" in report.notes
        assert report.classes == {}
    elif lacking == "results":
        assert report.metrics["TETA"] == report.metrics["TrackAP"] == 0
        assert any("no objects in the results" in note for note in report.notes)
    else:
        assert report.sequences["made-C-video_000"]["TETA"] is None and report.metrics["TETA"] > 0
        assert any("no objects in the ground truth of 1 of 3 videos: made-C-video_000" in note for note in report.notes)


def test_a_video_without_predictions_is_said(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(3), 3)
    lost = truth["videos"][1]["id"]
    images = {image["id"] for image in truth["images"] if image["video_id"] == lost}
    report = run(tmp_path, truth, [row for row in results if row["image_id"] not in images])
    name = truth["videos"][1]["name"].replace("/", "-")
    assert f"no predictions in 1 of 3 videos: {name}; all of their objects are missed" in report.notes
    assert not any("no predictions" in note for note in run(tmp_path, truth, results).notes)


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    for category in truth["categories"]:
        category["name"] = "thing"
    report = run(tmp_path, truth, results, metrics=("teta",))
    labels = [label for label in NAMES if label != 77]
    assert list(report.classes) == ["thing", *(f"thing ({label})" for label in labels[1:])]


SPLITS = {
    "base.txt": ("person\n\n  dog \nzebra\n", {"person", "dog"}, {"car", "abacus", "gargoyle"}),
    "names.json": ('{"base": ["person", "dog"], "novel": ["car"]}', {"person", "dog"}, {"car"}),
    "indices.json": (
        '{"classes": ["dog", "car", "person"], "base": [2, 0], "novel": [1]}',
        {"person", "dog"},
        {"car"},
    ),
    "ovtb_classname.py": (
        'import os\nCLASS = ("dog", "car", "person", "zebra")\nbase_id = [0]\nnovel_id = [1, 2, 3]\nos.remove("x")\n',
        {"dog"},
        {"car", "person"},
    ),
}


@pytest.mark.parametrize("file", SPLITS)
def test_base_classes_from_a_file(tmp_path: Path, file: str) -> None:
    text, base, novel = SPLITS[file]
    (tmp_path / file).write_text(text)
    truth, results = make_files(make_videos(1), 1)
    report = run(tmp_path, truth, results, "ovtb", metrics=("teta",), base_classes=str(tmp_path / file))
    for report_row, names in ((report.base, base), (report.novel, novel)):
        rows = [teta_of(report.classes[name]) for name in names]
        assert report_row == pytest.approx(mean(rows), rel=1e-12)
    assert file in report.settings["base_novel"]
    assert any("no category of the ground truth: zebra" in note for note in report.notes) == ("zebra" in text)
    assert any("neither base nor novel" in note for note in report.notes) == ("novel" in text)


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("base.txt", "zebra\n", "no base class in it is a category of the ground truth; expected a text file"),
        ("base.json", '{"novel": ["car"]}', "lists no base classes; expected"),
        ("base.json", '["car"]', "lists no base classes; expected"),
        ("base.json", '{"base": "car"}', "base: should be a list, found 'car'"),
        ("base.json", '{"base": [0]}', r"base\[0\]: should be the name of a class, or an index"),
        (
            "base.json",
            '{"base": [2], "names": ["car", "dog"]}',
            r"base\[0\]: should be the name of a class, or an index",
        ),
        ("base.py", "CLASS = open('x')\nbase_id = [0]", "not plain lists in Python"),
        ("base.py", "CLASS = [", "not plain lists in Python"),
        ("base.txt", b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_bad_base_classes(tmp_path: Path, file: str, text: str | bytes, message: str) -> None:
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    truth, results = make_files(make_videos(1), 1)
    with pytest.raises(BadTracks, match=message) as caught:
        run(tmp_path, truth, results, "ovtb", base_classes=str(tmp_path / file))
    assert "\n" not in str(caught.value) and file in str(caught.value)


def test_no_way_to_split(tmp_path: Path) -> None:
    truth, results = make_files(make_videos(1), 1)
    with pytest.raises(BadTracks, match="tao has no base and novel classes"):
        run(tmp_path, truth, results, base_classes="base.txt")
    for category in truth["categories"]:
        del category["frequency"]
    for name in ("tao-ov", "ovtb"):
        with pytest.raises(BadTracks, match="has no frequency to tell base from novel by; give the base classes with"):
            run(tmp_path, truth, results, name)
