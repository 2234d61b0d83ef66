"""Own classes in MOTChallenge text: each against TrackEval on files in which that class alone is a pedestrian."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.make_track_files import MotFiles, mot_videos, write_mot
from tests.evaluation.make_tracks import Faults
from tests.evaluation.test_mot_oracle import check_row, needs_oracle, oracle
from trackmill.pipeline.evaluation.benchmarks.mot import evaluate
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.formats.errors import BadTracks

Cells = list[str]


def rewrite(files: Path, target: Path, change: Callable[[Cells], Cells | None]) -> None:
    """Copy text files below a folder line by line; a line that `change` gives None for is left out."""
    for path in files.rglob("*"):
        copy = target / path.relative_to(files)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.name.endswith(".txt") and "seqmaps" not in path.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            rows = filter(None, (change(line.split(",")) for line in path.read_text().splitlines()))
            copy.write_text("".join(",".join(row) + "\n" for row in rows))
        elif path.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def with_classes(root: Path, seed: int = 0) -> MotFiles:
    """A MOT17 with classes in the results too, some of them wrong; class 3 has flags, as own annotations do."""
    faults = Faults(wrong_label=0.1)
    videos = mot_videos("mot17", seed=seed, count=2, num_frames=30, num_objects=24, faults=faults, steps=1 / 16)
    files = write_mot(root / "made", videos, "mot17", seed)
    labels = {video.name: iter(video.predictions.labels.tolist()) for video in videos}
    for name, of_rows in labels.items():
        path = files.results / f"{name}.txt"
        rows = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join([*row[:7], str(next(of_rows)), "-1", "-1"]) + "\n" for row in rows))
    rewrite(files.gt, root / "flagged", lambda row: [*row[:6], "1", *row[7:]] if row[7] == "3" else row)
    return replace(files, gt=root / "flagged")


def as_pedestrians(files: MotFiles, root: Path, chosen: Collection[str], all_results: bool = False) -> MotFiles:
    """What people do without `--classes`: the chosen classes become class 1, and class 1 another one."""

    def truth(row: Cells) -> Cells:
        label = "1" if row[7] in chosen else "4" if row[7] == "1" else row[7]
        return [*row[:7], label, *row[8:]]

    def result(row: Cells) -> Cells | None:
        return [*row[:7], "-1", *row[8:]] if all_results or row[7] in chosen else None

    rewrite(files.gt, root / "gt", truth)
    rewrite(files.results, root / "results", result)
    return replace(files, gt=root / "gt", results=root / "results")


def run(files: MotFiles, *classes: Any, benchmark: str = "mot17", **more: Any) -> Report:
    return evaluate(benchmark, str(files.gt), str(files.results), Options(classes=classes, **more))


@needs_oracle
@pytest.mark.parametrize("preprocess", [True, False])
@pytest.mark.parametrize("seed", [0, 4])
def test_each_class_and_all_together_equal_trackeval_on_rewritten_files(
    tmp_path: Path, seed: int, preprocess: bool
) -> None:
    files = with_classes(tmp_path, seed)
    report = run(files, "pedestrian", 3, preprocess=preprocess)
    each: dict[str, Any] = {}
    for name, number in (("pedestrian", "1"), ("3", "3"), ("any class", "13")):
        rewritten = as_pedestrians(files, tmp_path / name, set(number))
        if not preprocess:  # TrackEval then scores every class that is flagged
            rewrite(rewritten.gt, tmp_path / f"{name} alone", lambda row: row if row[7] == "1" else None)
            rewritten = MotFiles(
                root=tmp_path, gt=tmp_path / f"{name} alone", results=rewritten.results, names=files.names
            )
        each[name] = oracle.evaluate_mot("mot17", rewritten.gt, rewritten.results, files.names, preprocess)
        check_row(report.classes[name], each[name][1])
    assert list(report.classes) == ["pedestrian", "3", "any class"]
    # Together, a car that is called a pedestrian is missed and false: the counts are sums.
    for counted in ("TP", "FN", "FP", "IDSW", "MT", "GT", "IDTP"):
        assert report.metrics[counted] == sum(report.classes[name][counted] or 0 for name in ("pedestrian", "3"))
    tools = oracle.metrics()
    for number, sequence in enumerate(files.names):
        by_class = {name: each[name][0][number] for name in ("pedestrian", "3")}
        fields: dict[str, Any] = {}
        for tool in tools.values():
            fields |= tool.combine_classes_det_averaged(by_class)
        check_row(report.sequences[sequence], fields)


@needs_oracle
def test_one_class_and_results_without_any(tmp_path: Path) -> None:
    """The usual tracker writes -1: what it found is of the class that is asked for."""
    files = with_classes(tmp_path)
    rewritten = as_pedestrians(files, tmp_path / "as", {"3"}, all_results=True)
    nameless = replace(files, results=rewritten.results)
    for classes in ((3,), ("car",), ("Car",), ("3",)):
        report = run(nameless, *classes)
        each, together = oracle.evaluate_mot("mot17", rewritten.gt, rewritten.results, files.names)
        check_row(report.metrics, together)
        for name, wanted in zip(files.names, each):
            check_row(report.sequences[name], wanted)
        assert list(report.classes) == [str(classes[0])]
        assert report.settings["classes"] == ["3 (car)"]


@needs_oracle
def test_several_classes_and_results_without_any(tmp_path: Path) -> None:
    """Together boxes are compared whatever their class; apart, all predictions with each class, and a note says so."""
    files = with_classes(tmp_path)
    nameless = as_pedestrians(files, tmp_path / "as", {"1", "3"}, all_results=True)
    report = run(replace(files, results=nameless.results), 1, 3)
    check_row(report.metrics, oracle.evaluate_mot("mot17", nameless.gt, nameless.results, files.names)[1])
    assert report.metrics == report.classes["any class"]
    assert sum(note.startswith(f"{', '.join(files.names)}: the results name no class") for note in report.notes) == 1
    cars = as_pedestrians(files, tmp_path / "cars", {"3"}, all_results=True)
    check_row(report.classes["3"], oracle.evaluate_mot("mot17", cars.gt, cars.results, files.names)[1])


# By hand: a car in four frames, found in three, and a pedestrian, found in all, called a car in the last.
CAR = "".join(f"{frame},1,{10 * frame},20,30,40,1,3,1\n" for frame in (1, 2, 3, 4))
PEDESTRIAN = "".join(f"{frame},2,{10 * frame},200,30,40,1,1,1\n" for frame in (1, 2, 3, 4))
FOUND = "".join(f"{frame},1,{10 * frame},20,30,40,0.9,3,-1,-1\n" for frame in (1, 2, 4)) + "".join(
    f"{frame},2,{10 * frame},200,30,40,0.9,{3 if frame == 4 else 1},-1,-1\n" for frame in (1, 2, 3, 4)
)


@pytest.fixture
def case(tmp_path: Path) -> MotFiles:
    for side, text in (("gt", CAR + PEDESTRIAN), ("results", FOUND)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "A.txt").write_text(text)
    return MotFiles(root=tmp_path, gt=tmp_path / "gt", results=tmp_path / "results", names=("A",))


def counts(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("TP", "FN", "FP", "GT"))


def test_counts_by_hand(case: MotFiles) -> None:
    report = run(case, 1, "car")
    assert counts(report.classes["1"]) == (3, 1, 0, 4)
    assert counts(report.classes["car"]) == (3, 1, 1, 4)
    assert counts(report.classes["any class"]) == (7, 1, 0, 8)
    assert counts(report.metrics) == counts(report.sequences["A"]) == (6, 2, 1, 8)
    assert report.metrics["FAF"] == 0.25
    assert report.timelines["A"].fp == [0, 0, 0, 1] and report.timelines["A"].fn == [0, 0, 1, 1]
    only = run(case, "car")
    assert counts(only.metrics) == (3, 1, 1, 4) and list(only.classes) == ["car"]
    assert any("other classes are left out: 3 of class 1 (pedestrian)" in note for note in only.notes)


def test_rows_that_are_not_scored_are_no_silence(case: MotFiles) -> None:
    (case.gt / "A.txt").write_text(CAR)
    (case.results / "A.txt").write_text(FOUND.replace(",3,-1,-1\n", ",-1,-1,-1\n"))
    with pytest.raises(BadTracks, match=r"no row is scored: 4 of class 3 \(car\); --classes 3 scores them"):
        evaluate("mot17", str(case.gt), str(case.results), Options())
    (case.gt / "A.txt").write_text(PEDESTRIAN.replace(",1,1,1\n", ",0,1,1\n"))
    with pytest.raises(
        BadTracks, match=r"4 of class 1 \(pedestrian\) with flag 0 \(column 7\); scored rows have flag 1"
    ):
        evaluate("mot17", str(case.gt), str(case.results), Options())
    # Beside a sequence that is scored it is a note.
    (case.gt / "A.txt").write_text(CAR)
    (case.gt / "B.txt").write_text(PEDESTRIAN)
    (case.results / "B.txt").write_text("")
    notes = evaluate("mot17", str(case.gt), str(case.results), Options()).notes
    assert any(
        note.startswith("A: no row of the ground truth is scored: 4 of class 3 (car); --classes 3") for note in notes
    )


def test_considered_rows_that_are_passed_over_are_said(case: MotFiles) -> None:
    """Own annotations of two classes, evaluated as a benchmark of one."""
    (case.results / "A.txt").write_text(FOUND.replace(",3,-1,-1\n", ",-1,-1,-1\n").replace(",1,-1,-1\n", ",-1,-1,-1\n"))
    report = evaluate("mot17", str(case.gt), str(case.results), Options())
    wanted = "A: not scored, though its rows have flag 1 (column 7): class 3 (car); --classes 1,3 scores all of them"
    assert wanted in report.notes and report.metrics["GT"] == 4
    (case.gt / "A.txt").write_text((CAR + PEDESTRIAN).replace(",1,3,1\n", ",0,3,1\n"))
    assert not any("not scored" in note for note in evaluate("mot17", str(case.gt), str(case.results), Options()).notes)


def test_classes_that_motchallenge_marks_as_not_scored_are_scored_when_asked_for(case: MotFiles) -> None:
    (case.gt / "A.txt").write_text((CAR + PEDESTRIAN).replace(",1,3,1\n", ",0,3,1\n"))
    report = run(case, 3)
    assert counts(report.metrics) == (3, 1, 1, 4)
    assert "A: all rows of class 3 (car) have flag 0, and are scored all the same" in report.notes


def test_own_numbers_and_names(case: MotFiles, tmp_path: Path) -> None:
    """Numbers from 0, as in COCO; and the names of CVAT's export, in which class 2 is a truck, no distractor."""
    (case.gt / "A.txt").write_text((CAR + PEDESTRIAN).replace(",1,3,1\n", ",1,0,1\n"))
    (case.results / "A.txt").write_text(FOUND.replace(",3,-1,-1\n", ",0,-1,-1\n"))
    with pytest.raises(BadTracks, match=r"A\.txt: line 1: class 0 .* add --no-preprocess if these are your own"):
        run(case, 0, 1)
    assert counts(run(case, 0, 1, preprocess=False).classes["0"]) == (3, 1, 1, 4)
    export = tmp_path / "A.zip"
    with zipfile.ZipFile(export, "w") as archive:
        archive.writestr("gt/gt.txt", (CAR + PEDESTRIAN).replace(",1,3,1\n", ",1,2,1\n"))
        archive.writestr("gt/labels.txt", "person\nbig truck\n")
    (case.results / "A.txt").write_text(FOUND.replace(",3,-1,-1\n", ",2,-1,-1\n"))
    report = evaluate("mot17", str(export), str(case.results), Options(classes="person,Big-Truck"))
    assert counts(report.classes["Big-Truck"]) == (3, 1, 1, 4)
    assert report.settings["classes"] == ["1 (person)", "2 (big truck)"]
    assert report.settings["distractor_classes"] == []


@pytest.mark.parametrize(
    ("classes", "benchmark", "message"),
    [
        (("cars",), "mot17", "--classes cars: no such class; did you mean 'car'"),
        (("3", "car"), "mot17", "3 and car are one class"),
        (("1",), "mot15", "mot15 has no classes, .* --benchmark mot16"),
        ((",",), "mot17", "name at least one class"),
    ],
)
def test_classes_that_cannot_be(case: MotFiles, classes: tuple[str, ...], benchmark: str, message: str) -> None:
    with pytest.raises(BadTracks, match=message):
        run(case, *classes, benchmark=benchmark)


def test_results_that_name_some_classes(case: MotFiles) -> None:
    (case.results / "A.txt").write_text(FOUND.replace(",3,-1,-1\n", ",-1,-1,-1\n", 1))
    with pytest.raises(BadTracks, match=r"A\.txt: line 1: no class \(column 8\), where other rows have one"):
        run(case, 1, 3)


def test_results_without_classes_against_one_of_several_are_said(case: MotFiles) -> None:
    nameless = FOUND.replace(",3,-1,-1\n", ",-1,-1,-1\n").replace(",1,-1,-1\n", ",-1,-1,-1\n")
    (case.results / "A.txt").write_text(nameless)
    note = "every prediction counts as one of class 3 (car), though the ground truth has other classes, too"
    assert any(note in each for each in run(case, "car").notes)
    (case.gt / "A.txt").write_text(CAR)
    assert not any(note in each for each in run(case, "car").notes)


def test_a_class_without_objects_and_one_of_the_results_are_said(case: MotFiles) -> None:
    assert "class bicycle: no objects in the ground truth" in run(case, 1, "bicycle").notes
    with pytest.raises(BadTracks, match=r"line 1: class 3 .* or score several with --classes, such as --classes 1,3"):
        evaluate("mot17", str(case.gt), str(case.results), Options())
