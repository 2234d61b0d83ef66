"""BDD100K MOT and MOTS: reference numbers of the official tools, generated cases, and what no case is made of."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.evaluation.bdd_reference import CLASSES, clear_by_loops, without_ignored
from tests.evaluation.make_scalabel import make_scalabel, to_rle
from tests.evaluation.teta_reference import teta_by_loops
from tests.fixtures import packed
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.benchmarks.bdd100k import evaluate
from trackmill.pipeline.evaluation.metrics.bdd_clear import BddClearCounts
from trackmill.pipeline.evaluation.metrics.teta import TetaCounts
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.formats.errors import BadTracks

REAL = DATA / "bdd100k" / "box_track_eval"


def run(tmp_path: Path, gt: Any, results: Any, name: str = "bdd100k-mot", **options: Any) -> Report:
    for side, content in (("gt", gt), ("results", results)):
        (tmp_path / f"{side}.json").write_bytes(orjson.dumps(content))
    return evaluate(name, str(tmp_path / "gt.json"), str(tmp_path / "results.json"), Options(**options))


def frame(step: int, *labels: dict[str, Any], video: str = "v") -> dict[str, Any]:
    return {"name": f"{video}-{step}.jpg", "videoName": video, "frameIndex": step, "labels": list(labels)}


def label(identity: str, category: str = "car", x: float = 0, **more: Any) -> dict[str, Any]:
    return {"id": identity, "category": category, "box2d": {"x1": x, "y1": 0, "x2": x + 9, "y2": 9}} | more


def assert_finite(report: Report) -> None:
    stored = json.loads(report.as_json())
    for row in (stored["metrics"], *stored["sequences"].values(), *stored["classes"].values()):
        assert all(value is None or math.isfinite(value) for value in row.values())


# Reference numbers


def compare(expected: dict[str, Any], report: Report, names: dict[str, str]) -> int:
    """Compare official lists (classes, super-categories, AVERAGE and OVERALL) with a report; how many numbers."""
    compared = 0
    for key, value in expected.items():
        name = names.get(key, key)
        if not isinstance(value, list):
            assert report.metrics[name] == pytest.approx(value, abs=1e-6), key
            compared += 1
            continue
        for place, number in [pair for group in value for pair in group.items()]:
            if place == "AVERAGE":
                row, of = report.metrics, f"m{name}"
                if isinstance(number, int):
                    of = name  # the AVERAGE of counts is their sum
                elif of not in row:
                    continue
            else:
                row, of = (report.metrics if place == "OVERALL" else report.classes[place]), name
            if isinstance(number, str):
                assert number in ("nan", "-inf")
                assert row[of] is None, (key, place)
            elif isinstance(number, int):
                assert row[of] == number, (key, place)
            else:
                assert row[of] == pytest.approx(number, abs=1e-6), (key, place)
            compared += 1
    return compared


def test_official_numbers_published_rule(tmp_path):
    case = packed.unpack("bdd100k/basic", tmp_path)
    report = evaluate("bdd100k-mot", str(case / "gt.json"), str(case / "pred.json"), Options())
    expected = json.loads((case / "expected.json").read_text())
    assert compare(expected["clear_identity"], report, {"FM": "Frag", "IDSw": "IDSW"}) == 133
    assert compare(expected["hota"], report, {"LocA": "HOTA.LocA"}) >= 120
    assert compare(expected["teta"], report, {}) >= 120
    assert_finite(report)


def test_official_numbers_corrected_rule(tmp_path):
    case = packed.unpack("bdd100k/basic", tmp_path)
    paths = str(case / "gt.json"), str(case / "pred.json")
    report = evaluate("bdd100k-mot", *paths, Options(bdd_rule="corrected"))
    expected = json.loads((case / "expected.json").read_text())
    assert compare(expected["hota_unconverted_categories"], report, {}) == 42
    assert compare(expected["clear_identity"], report, {"FM": "Frag", "IDSw": "IDSW"}) == 133
    assert report.settings["rule"] == "corrected"


@needs_data("bdd100k/box_track_eval")
def test_real_video():
    report = evaluate(
        "bdd100k-mot", str(REAL / "track_sample_anns.json"), str(REAL / "track_predictions.json"), Options()
    )
    counts = {"FP": 126, "FN": 942, "IDSW": 45, "MT": 62, "PT": 47, "ML": 33, "Frag": 66}
    assert {name: report.metrics[name] for name in counts} == counts
    scores = {"MOTA": 64.2007, "MOTP": 87.1614, "IDF1": 71.0107, "mMOTA": 24.3242, "mIDF1": 32.2478, "mMOTP": 50.0129}
    assert {name: round(report.metrics[name], 4) for name in scores} == scores
    mota = {"pedestrian": 36.12565, "rider": 43.69748, "car": 71.27988, "truck": 47.69231, "bus": 0, "train": None}
    mota |= {"motorcycle": -4.20168, "bicycle": None, "human": 39.03226, "vehicle": 70.14925, "bike": -4.20168}
    assert {name: row["MOTA"] for name, row in report.classes.items()} == {
        name: value if value is None else pytest.approx(value, abs=1e-5) for name, value in mota.items()
    }


@pytest.mark.parametrize(
    ("seed", "grid", "masks", "expected"),
    [
        # By motmetrics 1.4.0 on the same frames: FP, FN, IDSW, MT, PT, ML, Frag, MOTA, MOTP, IDF1.
        (3, 0.0, False, (70, 35, 6, 8, 3, 5, 3, -0.6567164179104477, 0.7273790716520592, 0.2958579881656805)),
        (4, 8.0, False, (31, 7, 4, 5, 3, 2, 1, -0.826086956521739, 0.8071693452529419, 0.37142857142857144)),
        (5, 0.0, True, (51, 26, 5, 3, 7, 5, 4, -0.6399999999999999, 0.6918611907068217, 0.336)),
    ],
)
def test_numbers_of_motmetrics(tmp_path: Path, seed: int, grid: float, masks: bool, expected: tuple):
    report = run(tmp_path, *make_scalabel(seed, grid=grid, masks=masks), iou="mask" if masks else "box")
    names = ("FP", "FN", "IDSW", "MT", "PT", "ML", "Frag")
    assert tuple(report.metrics[name] for name in names) == expected[:7]
    scores = [report.metrics[name] for name in ("MOTA", "MOTP", "IDF1")]
    assert scores == pytest.approx([100 * value for value in expected[7:]], abs=1e-9)


# Generated cases against the rules written with loops

CASES = [(seed, grid, masks) for seed in range(4) for grid in (0.0, 6.0) for masks in (False, True)]


@pytest.mark.parametrize(("seed", "grid", "masks"), CASES)
def test_clear_and_identity_as_by_loops(tmp_path: Path, seed: int, grid: float, masks: bool):
    gt, results = make_scalabel(seed, grid=grid, masks=masks)
    report = run(tmp_path, gt, results, "bdd100k-mots" if masks else "bdd100k-mot")
    by_loops = clear_by_loops(gt, results, masks)
    for name, fields in by_loops.items():
        expected = BddClearCounts(**{key: int(value) for key, value in fields.items() if key != "distance"})
        row = report.classes[name]
        assert {key: row[key] for key in expected.counts()} == expected.counts(), name
        stored = expected.clear_scores() | expected.identity_scores()
        matched = fields["matched"]
        stored["MOTP"] = 1 - fields["distance"] / matched if matched else math.nan
        for key, value in stored.items():
            assert row[key] == (pytest.approx(100 * value, abs=1e-9) if math.isfinite(value) else None), (name, key)
    assert report.metrics["FN"] == sum(fields["gt"] - fields["matched"] for fields in by_loops.values())


@pytest.mark.parametrize("rule", ["published", "corrected"])
@pytest.mark.parametrize(("seed", "grid", "masks"), CASES)
def test_teta_as_by_loops(tmp_path: Path, seed: int, grid: float, masks: bool, rule: str):
    gt, results = make_scalabel(seed, grid=grid, masks=masks)
    name = "bdd100k-mots" if masks else "bdd100k-mot"
    report = run(tmp_path, gt, results, name, bdd_rule=rule, metrics=("teta",))
    videos = without_ignored(gt, results, inclusive=True, masks=masks, corrected=rule == "corrected", category=None)
    expected = teta_by_loops(videos, range(8), "mask" if masks else "box", exhaustive=True)
    for number, category in enumerate(CLASSES):
        row = report.classes[category]
        assert row == {key: pytest.approx(100 * value, abs=1e-9) for key, value in expected[number].items()}, category


@pytest.mark.parametrize("rule", ["published", "corrected"])
@pytest.mark.parametrize(("seed", "grid", "masks"), CASES)
def test_hota_as_trackeval(tmp_path: Path, seed: int, grid: float, masks: bool, rule: str):
    pytest.importorskip("trackeval")
    from tests.evaluation.oracle import evaluate as by_trackeval
    from tests.evaluation.oracle import similarity_data

    gt, results = make_scalabel(seed, grid=grid, masks=masks)
    report = run(tmp_path, gt, results, "bdd100k-mots" if masks else "bdd100k-mot", bdd_rule=rule)
    means = []
    for category in CLASSES:
        videos = without_ignored(
            gt, results, inclusive=False, masks=masks, corrected=rule == "corrected", category=category
        )
        _, expected = by_trackeval(similarity_data(video, "mask" if masks else "box") for video in videos)
        row = report.classes[category]
        for key in ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr"):
            assert row[key] == pytest.approx(100 * np.mean(expected[key]), abs=1e-9), (category, key)
        assert row["HOTA.LocA"] == pytest.approx(100 * np.mean(expected["LocA"]), abs=1e-9), category
        assert row["Dets"] == sum(len(video.predictions) for video in videos)
        means.append(100 * np.mean(expected["HOTA"]))
    assert report.metrics["mHOTA"] == pytest.approx(np.mean(means), abs=1e-9)


# Cases by hand


@pytest.mark.parametrize("name", ["bdd100k-mot", "bdd100k-mots"])
def test_ground_truth_against_itself(tmp_path: Path, name: str):
    _, results = make_scalabel(0, masks=True)
    scored = [
        one | {"labels": [made | {"category": "car" if "3" in made["id"] else "rider"} for made in one["labels"]]}
        for one in results
    ]
    for made in [made for one in scored for made in one["labels"]]:
        made.pop("attributes", None)
    report = run(tmp_path, scored, scored, name)
    names = ("MOTA", "IDF1", "HOTA", "TETA", "mTETA", "MOTP")
    assert [report.metrics[key] for key in names] == pytest.approx([100] * len(names))
    assert report.metrics["IDSW"] == report.metrics["FP"] == report.metrics["FN"] == 0


def test_means_and_pooled_numbers(tmp_path: Path):
    # The car is tracked, the pedestrian is not; the other six classes have nothing at all.
    gt = [frame(t, label("a", "car"), label("b", "pedestrian", 50)) for t in range(4)]
    report = run(tmp_path, gt, [frame(t, label("1", "car")) for t in range(4)])
    metrics = report.metrics
    assert (metrics["MOTA"], metrics["mMOTA"]) == (50, 100 / 8)
    assert (metrics["IDF1"], metrics["mIDF1"]) == (pytest.approx(200 / 3), 100 / 8)
    assert (metrics["MOTP"], metrics["mMOTP"]) == (100, 100 / 8)
    assert metrics["mHOTA"] == pytest.approx(100 / 8)
    # TETA's mean leaves out the six classes.
    assert metrics["mTETA"] == pytest.approx(report.classes["car"]["TETA"] / 2)
    assert report.classes["pedestrian"]["MOTA"] == 0
    assert report.classes["bus"]["MOTA"] is None
    assert report.classes["human"]["FN"] == 4
    assert report.classes["vehicle"]["MOTA"] == 100
    assert any("no ground truth for rider, truck" in note for note in report.notes)
    assert list(report.classes) == [
        *("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "human", "vehicle", "bike")
    ]


def test_look_alikes_are_real_for_hota_only_as_published(tmp_path: Path):
    gt = [frame(t, label("a"), label("b", "other vehicle", 50)) for t in range(3)]
    results = [frame(t, label("1"), label("2", "car", 50)) for t in range(3)]
    published = run(tmp_path, gt, results)
    corrected = run(tmp_path, gt, results, bdd_rule="corrected")
    assert published.classes["car"]["GT"] == 6
    assert corrected.classes["car"]["GT"] == 3
    # Both drop the prediction on the look-alike in CLEAR; corrected drops it everywhere.
    assert published.metrics["FP"] == corrected.metrics["FP"] == 0
    assert (published.classes["car"]["Dets"], corrected.classes["car"]["Dets"]) == (6, 3)
    assert published.metrics["HOTA"] == corrected.metrics["HOTA"] == pytest.approx(100)
    missed = [frame(t, label("1")) for t in range(3)]
    assert run(tmp_path, gt, missed).metrics["DetRe"] == pytest.approx(50)
    assert run(tmp_path, gt, missed, bdd_rule="corrected").metrics["DetRe"] == pytest.approx(100)
    assert any("rule 'corrected' ignores them" in note for note in published.notes)
    assert not any("look" in note or "corrected" in note for note in corrected.notes)


@pytest.mark.parametrize(
    ("left", "dropped"),
    [
        (0, True),  # inside the crowd
        (4, True),  # 6 of 10 columns inside
        (5, False),  # just half, which is not more than half
        (40, False),
    ],
)
def test_crowds_swallow_unmatched_predictions(tmp_path: Path, left: float, dropped: bool):
    gt = [frame(0, label("a", x=90), label("c", x=0, attributes={"crowd": True}))]
    results = [frame(0, label("1", "pedestrian", x=90), label("2", "pedestrian", x=left), label("3", x=90))]
    report = run(tmp_path, gt, results)
    assert report.classes["pedestrian"]["FP"] == (1 if dropped else 2)
    # HOTA's boxes end at x2, so half of 9 columns is passed a little later.
    assert report.classes["pedestrian"]["Dets"] == (1 if dropped else 2)


def test_predicted_crowds_and_look_alikes_count_only_outside_clear(tmp_path: Path):
    gt = [frame(0, label("a"))]
    results = [frame(0, label("1"), label("2", x=50, attributes={"crowd": True}), label("3", "trailer", x=80))]
    report = run(tmp_path, gt, results)
    assert report.metrics["FP"] == 0
    assert (report.classes["car"]["Dets"], report.classes["truck"]["Dets"]) == (2, 1)


@pytest.mark.parametrize("name", ["bdd100k-mot", "bdd100k-mots"])
def test_no_predictions(tmp_path: Path, name: str):
    gt, results = make_scalabel(1, masks=True)
    empty = [one | {"labels": []} for one in results]
    for nothing in (empty, []):
        report = run(tmp_path, gt, nothing, name)
        assert (report.metrics["MOTA"], report.metrics["IDF1"], report.metrics["HOTA"]) == (0, 0, 0)
        assert report.metrics["MOTP"] is None
        assert any("missed" in note for note in report.notes)
        assert_finite(report)


@pytest.mark.parametrize("name", ["bdd100k-mot", "bdd100k-mots"])
@pytest.mark.parametrize("frames", [True, False])
def test_no_ground_truth(tmp_path: Path, name: str, frames: bool):
    _, results = make_scalabel(1, masks=True)
    gt = [one | {"labels": None} for one in results] if frames else []
    report = run(tmp_path, gt, results if frames else [], name)
    assert {value for value in report.metrics.values() if not isinstance(value, int)} == {None}
    assert any("no objects in the ground truth" in note for note in report.notes)
    assert_finite(report)


def test_a_video_without_ground_truth(tmp_path: Path):
    gt = [frame(0, label("a")), frame(0, video="w")]
    report = run(tmp_path, gt, [frame(0, label("1")), frame(0, label("1"), video="w")])
    assert report.sequences["w"]["MOTA"] is None
    assert report.sequences["w"]["HOTA"] is None
    assert report.sequences["w"]["FP"] == 1
    assert report.metrics["MOTA"] == 0
    assert "no objects in the ground truth of video w" in report.notes


def test_missing_videos_and_frames_are_missed_objects(tmp_path: Path):
    gt = [frame(t, label("a"), video=video) for video in ("v", "w") for t in (0, 3, 5)]
    report = run(tmp_path, gt, [frame(3, label("1"))])
    assert report.metrics["FN"] == 5
    assert any("no results for video w" in note for note in report.notes)
    assert any(note.startswith("frames without an entry in the results: 2;") for note in report.notes)


def test_sequences_restrict(tmp_path: Path):
    gt, results = make_scalabel(2)
    whole = run(tmp_path, gt, results)
    one = run(tmp_path, gt, results, sequences=("v1",))
    assert list(one.sequences) == ["v1"]
    assert one.metrics == whole.sequences["v1"] == one.sequences["v1"]
    with pytest.raises(BadTracks, match=r"gt\.json: unknown sequence 'v7'; known: v0, v1"):
        run(tmp_path, gt, results, sequences=("v7",))


def test_results_of_more_videos_than_the_ground_truth_has(tmp_path: Path):
    """A submission for the whole split, evaluated on a part of it; with some missing it may be a misspelling."""
    gt, results = make_scalabel(2)
    whole = run(tmp_path, gt, results)
    more = run(tmp_path, gt, [*results, frame(0, label("1"), video="other")])
    assert more.metrics == whole.metrics
    assert more.notes == [*whole.notes, "results of videos without ground truth were left out (1): other"]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([frame(0, video="w")], r"results\.json: unknown sequence 'w'; known: v"),
        ([frame(0), frame(4), frame(7)], r"video 'v': frameIndex 4 is not in the ground truth \(and 1 more\)"),
        (
            [frame(0, label("1"), label("1", x=50))],
            r"results\.json: \[0\]\.labels\[1\]\.id: '1' is twice in this frame",
        ),
    ],
)
def test_results_that_do_not_fit(tmp_path: Path, results: Any, message: str):
    with pytest.raises(BadTracks, match=message) as caught:
        run(tmp_path, [frame(0, label("a")), frame(1)], results)
    assert "\n" not in str(caught.value)


def test_families(tmp_path: Path):
    gt, results = make_scalabel(2)
    whole = run(tmp_path, gt, results)
    clear = run(tmp_path, gt, results, metrics=("clear", "identity"))
    assert {"MOTA", "mMOTA", "IDF1", "mIDF1", "FP"} <= set(clear.metrics)
    assert not {"HOTA", "TETA", "mHOTA", "mTETA"} & set(clear.metrics)
    assert all(whole.metrics[name] == value for name, value in clear.metrics.items())
    hota = run(tmp_path, gt, results, metrics=("hota",))
    assert hota.metrics["LocA"] == whole.metrics["HOTA.LocA"]
    with pytest.raises(BadTracks, match="bdd100k-mot has no trackmap; choose from teta, hota"):
        run(tmp_path, gt, results, metrics=("trackmap",))


def test_class_vote(tmp_path: Path):
    gt = [frame(t, label("a")) for t in range(5)]
    results = [frame(t, label("1", "car" if t else "truck")) for t in range(5)]
    assert run(tmp_path, gt, results).classes["car"]["FN"] == 1
    voted = run(tmp_path, gt, results, class_vote=True)
    assert voted.classes["car"]["FN"] == 0
    assert voted.settings["class_vote"] is True
    # Among equals the first in BDD100K's order wins, although its number is higher.
    results = [frame(t, label("1", "bus" if t else "truck")) for t in range(2)]
    voted = run(tmp_path, gt[:2], results, class_vote=True)
    assert (voted.classes["truck"]["Dets"], voted.classes["bus"]["Dets"]) == (2, 0)


def test_overlapping_predicted_masks_are_removed_frame_by_frame(tmp_path: Path):
    mask = np.zeros((20, 30), bool)
    mask[2:8, 3:9] = True
    rle, other = to_rle(mask), to_rle(np.roll(mask, 15, axis=1))
    gt = [frame(t, label("a") | {"rle": rle}) for t in range(2)]
    results = [
        frame(0, label("1") | {"rle": rle}, label("2") | {"rle": other}),
        frame(1, label("1") | {"rle": rle}, label("2") | {"rle": rle}),
    ]
    report = run(tmp_path, gt, results, "bdd100k-mots")
    assert (report.metrics["FN"], report.metrics["FP"]) == (1, 1)
    assert any("frames with overlapping predicted masks: 1;" in note for note in report.notes)


def test_mask_sizes_must_agree(tmp_path: Path):
    gt = [frame(0, label("a") | {"rle": to_rle(np.ones((4, 5), bool))})]
    results = [frame(0, label("1") | {"rle": to_rle(np.ones((5, 4), bool))})]
    with pytest.raises(BadTracks, match=r"masks are \[5, 4\] \(height, width\), the ground truth's \[4, 5\]"):
        run(tmp_path, gt, results, "bdd100k-mots")


def test_folders_gzip_and_dictionaries_give_the_same(tmp_path: Path):
    gt, results = make_scalabel(3)
    plain = run(tmp_path, gt, results)
    (tmp_path / "a").mkdir()
    for video in ("v0", "v1"):
        frames = [one for one in reversed(gt) if one["videoName"] == video]
        (tmp_path / "a" / f"{video}.json").write_bytes(orjson.dumps({"frames": frames, "config": None}))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(orjson.dumps(results[::-1])))
    seen: list[tuple[int, int]] = []
    report = evaluate(
        "bdd100k-mot", str(tmp_path / "a"), str(tmp_path / "b.json.gz"), Options(), lambda *done: seen.append(done)
    )
    assert report.metrics == plain.metrics
    assert seen == [(1, 2), (2, 2)]


def test_the_report_shows_when_it_happened(tmp_path: Path):
    gt = [frame(t, label("a")) for t in range(4)]
    report = run(tmp_path, gt, [frame(t, label(str(t // 2))) for t in range(4)])
    (moment,) = report.moments
    assert (moment.frame, moment.label, moment.switches) == (2, "car", ((1, 0, 1),))
    assert moment.frame_name == "v/v-2.jpg"
    assert report.timelines["v"].idsw == [0, 0, 1, 0]
    assert len(report.curves["v"]["HOTA"]) == 19


def test_class_false_positives_of_a_class_without_ground_truth(tmp_path: Path):
    # `bus` has no ground truth: its row is 0, and the mean is over the car alone.
    gt = [frame(t, label("a")) for t in range(2)]
    report = run(tmp_path, gt, [frame(t, label("1", "bus")) for t in range(2)])
    assert report.classes["bus"]["TETA"] == 0
    assert TetaCounts.none().is_empty
    assert report.metrics["mTETA"] == report.classes["car"]["TETA"]
    assert report.metrics["mClsA"] == 0


def test_class_false_positives_are_forgotten_in_the_tools_order(tmp_path: Path):
    # The official tool comes to `bus` before `truck`, and sets the false positives of a class without ground truth
    # anew: 2 for the truck, not 4.
    gt = [frame(t, label("a"), label("b", "bus", 50)) for t in range(2)]
    report = run(tmp_path, gt, [frame(t, label("1"), label("2", "truck", 50)) for t in range(2)])
    assert report.metrics["ClsA"] == pytest.approx(100 * 2 / (2 + 2 + 2))
