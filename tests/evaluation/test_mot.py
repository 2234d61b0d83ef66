"""MOTChallenge benchmarks: layouts, bad input, and real results with the numbers that TrackEval gave for them."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.fixtures import packed
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.benchmarks.mot import evaluate
from trackmill.pipeline.evaluation.report.report import Report, Row
from trackmill.pipeline.evaluation.report.table import print_report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import error_text

TRACKEVAL_NAMES = {"CLR_TP": "TP", "CLR_FN": "FN", "CLR_FP": "FP", "GT_Dets": "GT"}

# Two people cross; the tracker confuses them in frame 3 and invents a third in frame 1.
GT = "".join(
    f"{frame},{who},{left},10,20,40,1,1,1\n"
    for frame in (1, 2, 3, 4)
    for who, left in ((1, 100 + 10 * frame), (2, 200 - 10 * frame))
)
RESULTS = (
    "".join(
        f"{frame},{who if frame < 3 else 3 - who},{left},10,20,40,0.9,-1,-1,-1\n"
        for frame in (1, 2, 3, 4)
        for who, left in ((1, 100 + 10 * frame), (2, 200 - 10 * frame))
    )
    + "1,9,500,10,20,40,0.4,-1,-1,-1\n"
)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """`gt/` in MOTChallenge's layout with sequences A and B, `results/` flat; both sequences hold the same."""
    for name in ("A", "B"):
        folder = tmp_path / "gt" / name
        (folder / "gt").mkdir(parents=True)
        (folder / "gt" / "gt.txt").write_text(GT)
        (folder / "seqinfo.ini").write_text(f"[Sequence]\nname={name}\nseqLength=4\n")
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{name}.txt").write_text(RESULTS)
    return tmp_path


def run(case: Path, name: str = "mot17", **options: Any) -> Report:
    return evaluate(name, str(case / "gt"), str(case / "results"), Options(**options))


def assert_is_crossing(row: Row, videos: int = 1) -> None:
    """The counts of the case, by hand."""
    expected = {"TP": 8, "FN": 0, "FP": 1, "IDSW": 2, "Frag": 0, "MT": 2, "ML": 0, "GT": 8, "Dets": 9}
    assert {name: row[name] for name in expected} == {name: videos * count for name, count in expected.items()}
    assert row["MOTA"] == pytest.approx(100 * (8 - 1 - 2) / 8)
    # Either pairing of the two identities keeps half of the frames.
    assert row["IDF1"] == pytest.approx(100 * 8 / (8 + 9))
    # Each pair of identities shares 2 of 4 + 4 - 2 frames; DetA is 8 of 9.
    assert row["AssA"] == pytest.approx(100 / 3)
    assert row["HOTA"] == pytest.approx(100 * math.sqrt(8 / 9 / 3))


def test_the_case_counted_by_hand(case: Path) -> None:
    report = run(case)
    assert_is_crossing(report.sequences["A"])
    assert_is_crossing(report.metrics, videos=2)
    assert report.classes == {"pedestrian": report.metrics}
    assert [moment.frame for moment in report.moments] == [2, 2]
    assert {(m.sequence, *m.switches) for m in report.moments} == {
        ("A", (1, 1, 2), (2, 2, 1)),
        ("B", (1, 1, 2), (2, 2, 1)),
    }
    assert report.timelines["A"].idsw == [0, 0, 2, 0]
    assert report.timelines["A"].fp == [1, 0, 0, 0]
    json.loads(report.as_json())


def flat(case: Path) -> None:
    for name in ("A", "B"):
        shutil.move(case / "gt" / name / "gt" / "gt.txt", case / "gt" / f"{name}.txt")
        shutil.rmtree(case / "gt" / name)


def deeper(case: Path) -> None:
    for side in ("gt", "results"):
        (case / side).rename(case / "moved")
        (case / side / "MOT17-train").mkdir(parents=True)
        (case / "moved").rename(case / side / "MOT17-train" / "data")
    (case / "gt" / "seqmaps").mkdir()
    (case / "gt" / "seqmaps" / "MOT17-train.txt").write_text("name\nA\nB\n")


def zipped(case: Path) -> None:
    with zipfile.ZipFile(case / "submission.zip", "w") as archive:
        for name in ("A", "B"):
            archive.write(case / "results" / f"{name}.txt", f"data/{name}.txt")
    shutil.rmtree(case / "results")
    (case / "results").mkdir()
    shutil.move(case / "submission.zip", case / "results")


def beside_other_files(case: Path) -> None:
    (case / "results" / "pedestrian_summary.txt").write_text("HOTA DetA\n1 2\n")
    (case / "results" / "README.txt").write_text("by hand\n")


@pytest.mark.parametrize("change", [flat, deeper, zipped, beside_other_files])
def test_layouts_give_the_same(case: Path, change: Any) -> None:
    change(case)
    assert_is_crossing(run(case).metrics, videos=2)


def test_any_file_system(case: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(case) + "/", "/mot-case", recursive=True)
    report = evaluate("mot17", "memory://mot-case/gt", "memory://mot-case/results", Options())
    assert_is_crossing(report.metrics, videos=2)


def test_only_some_sequences(case: Path) -> None:
    (case / "results" / "B.txt").unlink()
    report = run(case, sequences=("A",))
    assert list(report.sequences) == ["A"]
    assert_is_crossing(report.metrics)


def test_one_file_with_any_name(case: Path) -> None:
    results = case / "tracker_of_today.txt"
    results.write_text(RESULTS)
    assert_is_crossing(evaluate("mot17", str(case / "gt" / "A"), str(results), Options()).metrics)
    truth = str(case / "gt" / "A" / "gt" / "gt.txt")
    assert_is_crossing(evaluate("mot17", truth, str(results), Options()).metrics)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("results/A.txt", RESULTS + "5,1,1,1,1,1,1,-1,-1,-1\n", "A.txt: line 10: frame 5 is beyond 4, seqLength"),
        ("gt/A/gt/gt.txt", GT + "5,1,1,1,1,1,1,1,1\n", "gt.txt: line 9: frame 5 is beyond 4, seqLength"),
        ("results/A.txt", RESULTS.replace("0.9,-1", "0.9,3", 1), "A.txt: line 1: class 3"),
        ("results/A.txt", "1,-1,1,1,1,1,1,-1,-1,-1\n", "A.txt: line 1: id -1; results need an identity"),
        ("gt/A/gt/gt.txt", GT.replace(",1,1,1\n", ",1,0,1\n", 1), "gt.txt: line 1: the class .* should be 1 to 13"),
        ("gt/A/gt/gt.txt", GT.replace(",1,1,1\n", ",1\n"), "gt.txt: line 1: the class"),
        ("gt/A/seqinfo.ini", "nothing", "seqinfo.ini: should hold a section"),
        ("gt/A/seqinfo.ini", "[Sequence]\nseqLength=many\n", "seqinfo.ini: should hold a section"),
        ("gt/A/seqinfo.ini", "[Sequence]\nseqLength=0\n", "seqinfo.ini: seqLength is 0"),
        (
            "gt/A/seqinfo.ini",
            "[Sequence]\nseqLength=99999999999\n",
            "seqinfo.ini: seqLength is 99999999999, should be 1",
        ),
        ("results/sub/A.txt", RESULTS, None),
        ("results/A.txt", "\x00\x01", "A.txt: not a text file"),
    ],
)
def test_bad_files(case: Path, file: str, text: str, message: str | None) -> None:
    (case / file).parent.mkdir(exist_ok=True)
    (case / file).write_text(text)
    if message is None:  # files of the folder itself come before deeper ones
        assert_is_crossing(run(case).metrics, videos=2)
        return
    with pytest.raises(BadTracks, match=message):
        run(case)


def test_files_of_no_sequence_are_a_note(case: Path) -> None:
    """A log, another split, another tracker's file: what was asked for is scored, and the rest is named."""
    (case / "results" / "log.txt").write_text("epoch 1\nepoch 2\n")
    (case / "results" / "C.txt").write_text(RESULTS)
    report = run(case)
    assert_is_crossing(report.metrics, videos=2)
    assert "files of no sequence of the ground truth were left out: C.txt, log.txt" in report.notes
    assert_is_crossing(run(case, sequences=("A",)).metrics)


def test_a_misspelt_result_is_named(case: Path) -> None:
    (case / "results" / "A.txt").rename(case / "results" / "AA.txt")
    with pytest.raises(BadTracks, match="no results for A; did you mean 'AA'"):
        run(case)


def zipped(path: Path, files: dict[str, str | bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return str(path)


def test_zips_as_people_have_them(case: Path) -> None:
    macos = {"A.txt": RESULTS, "B.txt": RESULTS, "__MACOSX/._A.txt": b"\0\5\x16\7", "._B.txt": b"\0\5\x16\7"}
    results = zipped(case / "results.zip", macos)
    info = "[Sequence]\nseqLength=4\n"
    truth = {f"train/{name}/gt/gt.txt": GT for name in "AB"} | {f"train/{name}/seqinfo.ini": info for name in "AB"}
    gt = zipped(case / "gt.zip", truth)
    assert_is_crossing(evaluate("mot16", gt, results, Options()).metrics, videos=2)
    (case / "long").mkdir()
    for name in "AB":
        (case / "long" / f"{name}.txt").write_text(RESULTS + "5,1,1,1,1,1,1,-1,-1,-1\n")
    with pytest.raises(BadTracks, match="frame 5 is beyond 4, seqLength of seqinfo"):
        evaluate("mot17", gt, str(case / "long"), Options())


def test_a_zip_that_changes_is_read_anew(case: Path) -> None:
    """Within one program, as a notebook that zips its results again."""
    results = zipped(case / "results.zip", {"A.txt": RESULTS, "B.txt": RESULTS})
    assert evaluate("mot17", str(case / "gt"), results, Options()).metrics["TP"] == 16
    zipped(case / "results.zip", {"A.txt": "", "B.txt": RESULTS})
    assert evaluate("mot17", str(case / "gt"), results, Options()).metrics["TP"] == 8


def test_an_export_of_cvat_is_called_by_its_archive(case: Path) -> None:
    files: dict[str, str | bytes] = {"gt/gt.txt": GT, "gt/labels.txt": "person\n", "img1/frame_000000.PNG": b"x"}
    gt = zipped(case / "A.zip", files)
    report = evaluate("mot17", gt, str(case / "results" / "A.txt"), Options())
    assert list(report.sequences) == ["A"]
    assert_is_crossing(report.metrics)


def test_an_export_for_each_task(case: Path) -> None:
    """CVAT exports task by task: a folder of archives, each with its `gt/gt.txt`."""
    (case / "exports").mkdir()
    for name in "AB":
        zipped(case / "exports" / f"{name}.zip", {"gt/gt.txt": GT, "gt/labels.txt": "person\n"})
    report = evaluate("mot17", str(case / "exports"), str(case / "results"), Options())
    assert_is_crossing(report.metrics, videos=2)


def test_compressed_ground_truth(case: Path) -> None:
    for path in list((case / "gt").glob("*/gt/gt.txt")):
        path.with_name("gt.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_is_crossing(run(case).metrics, videos=2)
    truth = str(case / "gt" / "A" / "gt" / "gt.txt.gz")
    assert_is_crossing(evaluate("mot17", truth, str(case / "results" / "A.txt"), Options()).metrics)


def test_compressed_text(case: Path) -> None:
    for path in list((case / "results").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_is_crossing(run(case).metrics, videos=2)
    (case / "results" / "A.txt.gz").write_bytes(b"\x1f\x8b cut")
    with pytest.raises(BadTracks, match=r"A\.txt\.gz: a gzip file that ends early"):
        run(case)


def test_another_file_of_ground_truth(case: Path) -> None:
    """As `gt_val_half.txt` lies beside `gt.txt` in many repositories."""
    for name in "AB":
        half = "".join(line for line in GT.splitlines(keepends=True) if int(line.split(",")[0]) <= 2)
        (case / "gt" / name / "gt" / "gt_val_half.txt").write_text(half)
    report = run(case, gt_file="gt_val_half.txt")
    assert (report.metrics["GT"], report.metrics["Dets"]) == (8, 18)
    assert report.settings["gt_file"] == "gt_val_half.txt"
    with pytest.raises(BadTracks, match=r"no SEQUENCE/gt/gt_val_haf\.txt; did you mean 'gt_val_half\.txt'"):
        run(case, gt_file="gt_val_haf.txt")


@pytest.mark.parametrize(
    ("frames", "gt", "predictions", "switches"),
    [
        ("1:2", 4, 5, 0),
        ("3:4", 4, 4, 0),
        ("2:", 6, 6, 2),
        (":3", 6, 7, 2),
        ("3:3", 2, 2, 0),
        (":", 8, 9, 2),
        (":0.5", 4, 5, 0),  # the halves of four frames
        ("0.5:", 4, 4, 0),
        (".7:", 4, 4, 0),  # 2.8 frames are left out, that is two
    ],
)
def test_a_range_of_frames(case: Path, frames: str, gt: int, predictions: int, switches: int) -> None:
    """The identities are confused from frame 3 on: within one half nothing is."""
    report = run(case, sequences=("A",), frames=frames)
    row = report.metrics
    assert (row["GT"], row["Dets"], row["IDSW"]) == (gt, predictions, switches)
    left = 9 - predictions
    assert [note for note in report.notes if "other frames" in note] == (
        [f"A: {left} predictions of other frames are left out"] if left else []
    )


def test_a_range_that_is_none(case: Path) -> None:
    for frames in ("3:2", "0:3", ":0.1"):
        with pytest.raises(BadTracks, match="give FROM:TO"):
            run(case, frames=frames)
    for frames in ("a:b", "1.5:", "0.5"):
        with pytest.raises(ValueError, match="frames"):
            Options(frames=frames)


def test_a_range_without_objects_is_an_error(case: Path) -> None:
    with pytest.raises(BadTracks, match="no object that is scored lies in --frames 301:; FROM and TO count from 1"):
        run(case, frames="301:")


def test_results_of_a_whole_sequence_against_half_a_ground_truth_are_said(case: Path) -> None:
    """The numbers stay TrackEval's; a tracker's rows in the other half are no mistakes of the tracker."""
    for name in ("A", "B"):
        (case / "gt" / name / "seqinfo.ini").write_text("[Sequence]\nseqLength=8\n")
        text = "".join(f"{frame},1,{100 + 10 * frame},10,20,40,0.9,-1,-1,-1\n" for frame in range(1, 9))
        (case / "results" / f"{name}.txt").write_text(text)
    report = run(case)
    assert report.metrics["FP"] == 8
    note = (
        "A, B: 4 predictions count as false because the ground truth has rows of frames 1 to 4 only; --frames 1:4 "
        "leaves them out"
    )
    assert note in report.notes
    assert run(case, frames="1:4").metrics["FP"] == 0


def test_results_of_a_part_against_a_whole_ground_truth_are_said(case: Path) -> None:
    truth = "".join(f"{frame},1,{10 * frame},10,20,40,1,1,1.0\n" for frame in range(1, 41))
    (case / "gt" / "A" / "gt" / "gt.txt").write_text(truth)
    (case / "gt" / "A" / "seqinfo.ini").write_text("[Sequence]\nseqLength=40\n")
    rows = [f"{frame},1,{10 * frame},10,20,40,0.9,-1,-1,-1\n" for frame in range(1, 41)]
    said = "30 objects count as missed because the results have rows of frames 1 to 10 only, of 1 to 40; if no other "
    said = f"A: {said}was tracked, --frames 1:10 scores that part"
    (case / "results" / "A.txt").write_text("".join(rows[:10]))
    assert said in run(case, sequences=("A",)).notes
    assert run(case, sequences=("A",), frames="1:10").metrics["MOTA"] == 100
    # People come late and leave early, and a gap in between is the tracker's.
    (case / "results" / "A.txt").write_text("".join(rows[4:15] + rows[30:37]))
    assert not [note for note in run(case, sequences=("A",)).notes if "count as missed" in note]


def test_results_of_a_run_that_was_stopped_are_named(case: Path) -> None:
    (case / "results" / "B.txt").rename(case / "results" / "B.partial.txt")
    said = r"B\.partial\.txt is what a run left that was stopped; rename it to B"
    with pytest.raises(BadTracks, match=said):
        run(case)
    (case / "results" / "A.txt").unlink()  # who has nothing at all does not hide it
    with pytest.raises(BadTracks, match=said):
        run(case)


def test_a_sequence_behind_a_link_to_nothing_is_an_error(case: Path) -> None:
    (case / "results" / "C.txt").write_text(RESULTS)
    (case / "gt" / "C").symlink_to(case / "unmounted" / "C")
    with pytest.raises(FileNotFoundError) as caught:
        run(case)
    assert error_text(caught.value) == f"{case}/gt/C: a link to {case}/unmounted/C, where nothing is"
    assert list(run(case, sequences=("A", "B")).sequences) == ["A", "B"]
    (case / "gt" / "A" / "img1").symlink_to(case / "unmounted")
    assert list(run(case, sequences=("A", "B")).sequences) == ["A", "B"], "pictures are not needed"


def test_archives_of_other_kinds_are_named(case: Path) -> None:
    with tarfile.open(case / "results.tar.gz", "w:gz") as tar:
        tar.add(case / "results", "results")
    with pytest.raises(BadTracks, match=r"results.tar.gz: archives of this kind are not read; unpack it"):
        evaluate("mot17", str(case / "gt"), str(case / "results.tar.gz"), Options())


def test_missing_and_doubled_sequences(case: Path) -> None:
    with pytest.raises(BadTracks, match="unknown sequence 'AA'; did you mean 'A'"):
        run(case, sequences=("AA",))
    (case / "results" / "B.txt").unlink()
    with pytest.raises(BadTracks, match="no results for B; put an empty B"):
        run(case)
    for folder in ("x", "y"):
        (case / "results" / folder).mkdir()
        (case / "results" / folder / "A.txt").write_text(RESULTS)
    (case / "results" / "A.txt").unlink()
    with pytest.raises(BadTracks, match="two files for sequence A"):
        run(case)
    shutil.rmtree(case / "results")
    with pytest.raises(FileNotFoundError):
        run(case)
    (case / "results").mkdir()
    (case / "results" / "tracks.csv").write_text(RESULTS)
    with pytest.raises(BadTracks, match="holds neither"):
        run(case)
    (case / "results" / "broken.zip").write_bytes(b"PK\3\4 broken")
    with pytest.raises(BadTracks, match="not a zip archive"):
        run(case)


def test_frames_without_a_known_end(case: Path) -> None:
    (case / "gt" / "A" / "seqinfo.ini").unlink()
    assert_is_crossing(run(case).metrics, videos=2)
    (case / "results" / "A.txt").write_text(RESULTS + "5,1,1,1,1,1,1,-1,-1,-1\n")
    with pytest.raises(BadTracks, match=r"beyond 4, the last frame with ground truth; .* in .*/gt/A/seqinfo\.ini"):
        run(case)


@pytest.mark.parametrize("what", ["folder", "file", "zip"])
def test_the_length_of_flat_ground_truth_is_read_where_the_error_says(case: Path, what: str) -> None:
    longer = RESULTS + "6,1,1,1,1,1,1,-1,-1,-1\n"
    info = "[Sequence]\nseqLength=6\n"
    (case / "flat").mkdir()
    for name in "AB":
        (case / "flat" / f"{name}.txt").write_text(GT)
        (case / "results" / f"{name}.txt").write_text(longer)
    gt = {"folder": case / "flat", "file": case / "flat" / "A.txt", "zip": case / "gt.zip"}[what]
    results, files = case / "results" / ("A.txt" if what == "file" else ""), {f"{name}.txt": GT for name in "AB"}
    zipped(case / "gt.zip", files)
    where = r"A/seqinfo\.ini in .*gt\.zip" if what == "zip" else r"flat/A/seqinfo\.ini"
    with pytest.raises(BadTracks, match=rf"frame 6 is beyond 4, .*; if the sequence goes on, say so in .*{where}"):
        evaluate("mot17", str(gt), str(results), Options())
    for name in "AB":
        (case / "flat" / name).mkdir()
        (case / "flat" / name / "seqinfo.ini").write_text(info)
        files[f"{name}/seqinfo.ini"] = info
    zipped(case / "gt.zip", files)
    metrics = evaluate("mot17", str(gt), str(results), Options()).metrics
    assert metrics["FP"] == (2 if what == "file" else 4)
    assert metrics["FAF"] == 2 / 6


def test_one_flat_sequence_has_its_length_beside_it(case: Path) -> None:
    (case / "flat").mkdir()
    (case / "flat" / "A.txt").write_text(GT)
    (case / "flat" / "seqinfo.ini").write_text("[Sequence]\nseqLength=8\n")
    report = evaluate("mot17", str(case / "flat"), str(case / "results" / "A.txt"), Options())
    assert report.metrics["FAF"] == 1 / 8


@pytest.mark.parametrize("name", ["room_summary", "readme", "seqmap", "README"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_sequences_called_like_other_files(case: Path, name: str, as_zip: bool) -> None:
    """Beside files that do hold no tracks; an empty result file is one too."""
    folders = {"flat": GT, "found": RESULTS}
    for folder, text in folders.items():
        (case / folder).mkdir()
        (case / folder / f"{name}.txt").write_text(text)
        (case / folder / "A.txt").write_text(text)
        (case / folder / "pedestrian_summary.txt").write_text("HOTA DetA AssA MOTA IDF1 IDSW FP\n1 2 3 4 5 6 7\n")
    (case / "found" / "A.txt").write_text("")
    paths = {
        folder: zipped(case / f"{folder}.zip", {path.name: path.read_bytes() for path in (case / folder).iterdir()})
        if as_zip
        else str(case / folder)
        for folder in folders
    }
    report = evaluate("mot17", paths["flat"], paths["found"], Options())
    assert set(report.sequences) == {name, "A"}
    assert_is_crossing(report.sequences[name])
    (case / "found" / f"{name}.txt").write_text("")
    report = evaluate("mot17", str(case / "flat"), str(case / "found"), Options())
    assert report.sequences[name]["FN"] == 8


def test_no_predictions_and_no_ground_truth_are_said(case: Path) -> None:
    (case / "results" / "A.txt").write_text("")
    (case / "gt" / "B" / "gt" / "gt.txt").write_text("")
    report = run(case)
    nothing, false = report.sequences["A"], report.sequences["B"]
    assert (nothing["HOTA"], nothing["MOTA"], nothing["IDF1"], nothing["FN"], nothing["ML"]) == (0, 0, 0, 8, 2)
    assert [false[name] for name in ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1")] == [None] * 7
    assert false["FP"] == 9
    assert report.metrics["MOTA"] == pytest.approx(-100 * 9 / 8)
    assert any("A: no predictions" in note for note in report.notes)
    assert any("B: no objects in the ground truth" in note for note in report.notes)
    (case / "gt" / "A" / "gt" / "gt.txt").write_text("")
    report = run(case)
    assert report.metrics["HOTA"] is None and report.metrics["FP"] == 9
    assert "NaN" not in report.as_json().decode()


def test_masks_and_classes_are_refused(case: Path) -> None:
    with pytest.raises(BadTracks, match="no masks"):
        run(case, iou="mask")
    with pytest.raises(BadTracks, match="teta needs classes"):
        run(case, metrics=("teta",))
    assert "HOTA" not in run(case, metrics=("clear",)).metrics


def test_ground_truth_against_itself_is_perfect(case: Path) -> None:
    distractors = GT + "".join(f"{frame},7,700,10,20,40,0,{label},1\n" for frame, label in ((1, 8), (2, 3), (3, 1)))
    (case / "gt" / "A" / "gt" / "gt.txt").write_text(distractors)
    for results in (case / "gt", case / "results"):
        if results.name == "results":
            shutil.copy(case / "gt" / "A" / "gt" / "gt.txt", results / "A.txt")
            shutil.copy(case / "gt" / "B" / "gt" / "gt.txt", results / "B.txt")
        report = evaluate("mot17", str(case / "gt"), str(results), Options())
        ratios = {name: value for name, value in report.metrics.items() if isinstance(value, float)}
        assert (ratios.pop("FAF"), ratios.pop("ML%")) == (0, 0)
        assert ratios == {name: pytest.approx(100) for name in ratios}
        assert any("ground truth" in note for note in report.notes)


@pytest.mark.parametrize("name", ["mot15", "mot17", "mot20", "dancetrack", "sportsmot"])
def test_every_benchmark_counts_the_case(case: Path, name: str) -> None:
    assert_is_crossing(run(case, name).metrics, videos=2)


def test_what_is_scored_depends_on_the_benchmark(case: Path) -> None:
    """A prediction on a distractor, on a vehicle, on an unconsidered pedestrian."""
    extra = [(5, 300, 8), (6, 400, 6), (7, 600, 1)]
    truth = GT + "".join(f"1,{who},{left},10,20,40,0,{label},1\n" for who, left, label in extra)
    found = RESULTS + "".join(f"1,{who},{left},10,20,40,0.9,-1,-1,-1\n" for who, left, _ in extra)
    for name in ("A", "B"):
        (case / "gt" / name / "gt" / "gt.txt").write_text(truth)
        (case / "results" / f"{name}.txt").write_text(found)
    # Only the distractor goes; in MOT20 the vehicle too; MOT15 knows neither.
    assert [run(case, name).metrics["FP"] for name in ("mot17", "mot20", "mot15")] == [2 * 3, 2 * 2, 2 * 4]
    assert run(case, "mot17", preprocess=False).metrics["FP"] == 2 * 4
    assert run(case, "mot17").settings["distractor_classes"] == [2, 7, 8, 12]


def assert_equals_trackeval(row: Row, expected: dict[str, Any], tolerance: float) -> None:
    compared = 0
    for key, value in expected.items():
        name = TRACKEVAL_NAMES.get(key.split(".")[-1], key.split(".")[-1])
        if name not in row or key.endswith("per_alpha"):
            continue
        compared += 1
        got = row[name]
        assert got == (pytest.approx(100 * value, abs=tolerance) if isinstance(got, float) else value), key
    assert compared >= 18


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [("mot17", "mot17_like", "MOT17-train"), ("dancetrack", "dancetrack_like", "DanceTrack-val")],
)
def test_reference_cases(tmp_path: Path, name: str, folder: str, split: str) -> None:
    root = packed.unpack(f"mot/{folder}", tmp_path)
    expected = json.loads((root / "expected.json").read_text())
    report = evaluate(name, str(root / "gt" / split), str(root / "trackers" / split / "noisy"), Options())
    assert_equals_trackeval(report.metrics, expected.pop("COMBINED_SEQ"), 1e-10)
    assert set(report.sequences) == set(expected)
    for sequence, values in expected.items():
        assert_equals_trackeval(report.sequences[sequence], values, 1e-10)
        assert report.curves[sequence]["AssA"] == pytest.approx([100 * v for v in values["HOTA.AssA.per_alpha"]])


@needs_data("mot15")
def test_real_results_of_mot15() -> None:
    root = DATA / "mot15"
    for sequence, trackers in json.loads((root / "reference_metrics.json").read_text())["sequences"].items():
        length = trackers.pop("seq_length")
        for tracker, expected in trackers.items():
            results = root / sequence / "results" / f"{sequence}_{tracker}.txt"
            report = evaluate("mot15", str(root / sequence), str(results), Options())
            assert_equals_trackeval(report.metrics, expected, 1e-4)
            assert len(report.timelines[sequence].tp) == length


@needs_data("mot17_full_gt")
@pytest.mark.parametrize("preprocess", [True, False])
def test_real_ground_truth_of_mot17(preprocess: bool) -> None:
    root = DATA / "mot17_full_gt"
    expected = json.loads((root / "reference_metrics.json").read_text())["metrics"][f"do_preproc={preprocess}"]
    results = root / "MOT17-02-FRCNN" / "results" / "MOT17-02-FRCNN_greedy-iou.txt"
    report = evaluate("mot17", str(root), str(results), Options(preprocess=preprocess))
    assert_equals_trackeval(report.metrics, expected, 1e-4)
    perfect = evaluate("mot17", str(root), str(root), Options(preprocess=preprocess)).metrics
    assert (perfect.pop("FAF"), perfect.pop("ML%")) == (0, 0)
    assert all(value == 100 for value in perfect.values() if isinstance(value, float))
    assert perfect["GT"] == perfect["TP"] == 18581


def as_json(case: Path, category: str, masks: bool = False) -> None:
    """The case as COCO-VID JSON, gzipped ground truth, in place of its text files."""
    images = [{"id": 10 * v + f, "video_id": v, "frame_index": f} for v in (1, 2) for f in (1, 2, 3, 4)]
    sides: dict[str, list[dict[str, Any]]] = {"gt": [], "results": []}
    for side, text in (("gt", GT), ("results", RESULTS)):
        for video in (1, 2):
            for line in text.splitlines():
                frame, who, x, y, w, h, score, *_ = (float(cell) for cell in line.split(","))
                row = {"image_id": 10 * video + int(frame), "video_id": video, "track_id": int(who), "category_id": 7}
                row |= {"bbox": [x, y, w, h], "score": score, "id": len(sides[side]) + 1}
                if masks:
                    row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                sides[side].append(row)
    content = {
        "videos": [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}],
        "images": [image | {"height": 100, "width": 640} for image in images],
        "annotations": sides["gt"],
        "categories": [{"id": 7, "name": category}, {"id": 9, "name": "person_on_vehicle"}],
    }
    for side in ("gt", "results"):
        shutil.rmtree(case / side)
        (case / side).mkdir()
    (case / "gt" / "gt.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    (case / "results" / "results.json").write_text(json.dumps(sides["results"]))


@pytest.mark.parametrize("name", ["mot15", "mot17", "dancetrack"])
def test_json_of_both_sides(case: Path, name: str) -> None:
    as_json(case, "pedestrian")
    report = run(case, name)
    assert_is_crossing(report.metrics, videos=2)
    assert_is_crossing(report.sequences["A"])


def test_json_with_masks(case: Path) -> None:
    as_json(case, "person", masks=True)
    report = run(case, iou="mask")
    assert report.iou == "mask"
    assert_is_crossing(report.metrics, videos=2)


def test_json_that_does_not_fit(case: Path) -> None:
    as_json(case, "zebra")
    with pytest.raises(BadTracks, match="category 'zebra' is none of MOTChallenge's"):
        run(case)
    as_json(case, "static person")
    with pytest.raises(BadTracks, match="other categories than the scored one"):
        run(case)
    with pytest.raises(BadTracks, match="JSON results need ground truth as JSON"):
        (case / "gt" / "gt.json.gz").unlink()
        (case / "gt" / "A.txt").write_text(GT)
        run(case)


def test_numbers_that_tables_of_mot_challenge_have(case: Path) -> None:
    """By hand: every object is found, 1 of 9 predictions is false, in 4 frames; overlaps are 1."""
    report = run(case, sequences=("A",))
    wanted = {"Rcll": 100, "Prcn": 100 * 8 / 9, "FAF": 0.25, "MT": 2, "MT%": 100, "PT": 0, "ML%": 0, "LocA(0)": 100}
    for row in (report.metrics, report.sequences["A"], json.loads(report.as_json())["metrics"]):
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)
        assert row["HOTA(0)"] == pytest.approx(100 * math.sqrt(8 / 9 / 3))
    # The false one is in frame 1, so two other frames have none.
    assert run(case, sequences=("A",), frames="3:4").metrics["FAF"] == 0
    assert run(case, sequences=("A",), frames="1:2").metrics["FAF"] == 0.5
    assert run(case, sequences=("A",), frames="1:").metrics["FAF"] == 0.25


def test_numbers_of_tables_are_printed(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(run(case))
    (heading,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("sequence"))
    assert {"HOTA(0)", "LocA(0)", "Rcll", "Prcn", "FAF", "MT", "MT%", "PT", "ML", "ML%"} <= set(heading)
