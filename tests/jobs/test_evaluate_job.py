"""`jobs/evaluate.py` as people call it: output, files, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trackmill.jobs.evaluate import main
from trackmill.pipeline.evaluation.run import BENCHMARKS

ROOT = Path(__file__).parents[2]
NAMES = ["HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDSW", "Frag", "IDF1", "IDP", "IDR"]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Two flat sequences of one object that is found in three of four frames."""
    for name in ("A", "B"):
        for side, frames in (("gt", (1, 2, 3, 4)), ("results", (1, 2, 4))):
            (tmp_path / side).mkdir(exist_ok=True)
            lines = [f"{frame},1,{10 * frame},20,30,40,1,1,1\n" for frame in frames]
            (tmp_path / side / f"{name}.txt").write_text("".join(lines))
    return tmp_path


def call(case: Path, *more: str, benchmark: str = "mot17") -> int:
    return main(["--benchmark", benchmark, "--gt", str(case / "gt"), "--results", str(case / "results"), *more])


def test_table_json_and_page(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(case, "--out", str(case / "out" / "r.json"), "--html", str(case / "out" / "r.html")) == 0
    printed = capsys.readouterr().out
    assert "TOTAL" in printed and "75.000" in printed
    report = json.loads((case / "out" / "r.json").read_text())
    assert report["benchmark"] == "mot17"
    for row in (report["metrics"], report["sequences"]["A"], report["classes"]["pedestrian"]):
        assert set(NAMES) <= set(row)
        assert row["MOTA"] == pytest.approx(75) and row["IDSW"] == 0
    assert [type(report["metrics"][name]) for name in ("IDSW", "Frag", "MOTA")] == [int, int, float]
    assert (case / "out" / "r.html").read_text().startswith("<!doctype html>")


def test_one_sequence(case: Path) -> None:
    assert call(case, "--sequences", "B", "--out", str(case / "r.json")) == 0
    assert list(json.loads((case / "r.json").read_text())["sequences"]) == ["B"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--sequences", "C"], "unknown sequence 'C'"),
        (["--iou", "mask"], "no masks"),
        (["--gt", "nowhere"], "nowhere"),
        (["--max-detections", "-1"], "--max-detections"),
        (["--out", "pipe:cat"], "pipe"),
        (["--out", "s3://user:secret@host/x"], "user name or password"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(
    case: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    assert call(case, *more) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and expected in printed
    assert "secret" not in printed


def test_what_a_benchmark_needs_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for benchmark, message in (("mot17", "--results"), ("association", "--embeddings"), ("mot99", "did you mean 'mot")):
        assert main(["--benchmark", benchmark, "--gt", "x"]) == 2
        assert message in capsys.readouterr().err


def test_an_option_of_another_benchmark_is_refused(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(case, "--stride", "4") == 2
    assert "'strides' is no choice of --benchmark mot17" in capsys.readouterr().err
    assert main(["--benchmark", "association", "--gt", "x", "--embeddings", "hsv", "--iou", "box"]) == 2
    assert "'iou' is no choice of --benchmark association" in capsys.readouterr().err
    assert main(["--benchmark", "association", "--gt", "x", "--embeddings", "hsv", "--workers", "2"]) == 2
    assert "association runs in one process" in capsys.readouterr().err


def test_embeddings_are_compared(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--embeddings", "identity", "--against", "random", "--stride", "1", "--gaps", "1", "--out"]
    assert main(["--benchmark", "association", "--gt", str(case / "gt"), *more, str(case / "r.json")]) == 0
    report = json.loads((case / "r.json").read_text())
    assert report["metrics"]["AssA"] == 100 and report["metrics"]["IDF1"] == 100
    assert "difference" in capsys.readouterr().out


def test_it_runs_as_a_script(case: Path) -> None:
    command = [
        sys.executable,
        "jobs/evaluate.py",
        "--benchmark",
        "mot15",
        "--gt",
        case / "gt",
        "--results",
        case / "gt",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "100.000" in done.stdout and not done.stderr


def test_every_benchmark_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    names = "mot15 mot16 mot17 mot20 dancetrack sportsmot tao tao-ov ovtb bdd100k-mot bdd100k-mots youtubevis ovis uvo"
    assert list(BENCHMARKS) == names.split()
    assert main(["--help"]) == 0
    assert ", ".join([*names.split(), "association"]) in " ".join(capsys.readouterr().out.split())


def test_an_option_of_another_benchmark_is_a_mistake(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gt", str(case / "gt"), "--results", str(case / "results"), "--max-detections", "300"]
    assert main(["--benchmark", "mot17", *words]) == 2
    assert "max_detections is no option of benchmark mot17: leave it out" in capsys.readouterr().err


def test_frames_are_a_range_and_pictures_a_root(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--benchmark", "mot17", "--gt", str(case / "gt"), "--results", str(case / "results")]
    for more in (["--frames", "2:3"], ["--frames", str(case / "gt"), "--html", str(case / "a.html")]):
        assert main([*words, *more, "--output", str(case / "out.json")]) == 0
        frames = json.loads((case / "out.json").read_text())["settings"].get("frames")
        assert frames == ("2:3" if more[1] == "2:3" else None)
    capsys.readouterr()
    assert main(["--benchmark", "association", "--gt", "x", "--embeddings", "hsv", "--frames", "2:3"]) == 2
    assert "takes all frames" in capsys.readouterr().err


@pytest.mark.parametrize("frames", ["2-3", " 2:3", "3", "1,2", "2:3:4"])
def test_what_was_meant_as_a_range_is_not_taken_for_a_folder(
    case: Path, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(case, "--frames", frames) == 2
    assert f"--frames {frames.strip()}: give FROM:TO, such as 301:600" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--output", "--html"])
def test_a_folder_where_a_file_is_needed_is_told_before_the_work(
    case: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (case / "out").mkdir()
    assert call(case, option, str(case / "out")) == 2
    said = capsys.readouterr()
    assert f"{case}/out is a folder, a file of that name is to be written" in said.err and not said.out
    assert ".part" not in said.err


def test_own_classes_on_the_command_line(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (case / "gt").iterdir():
        path.write_text(path.read_text() + "1,2,300,20,30,40,1,3,1\n")
        results = case / "results" / path.name
        results.write_text(results.read_text() + "1,2,300,20,30,40,1,3,1\n")
    for words in (["1,3"], ["1", "3"], ["1, 3"]):
        assert call(case, "--classes", *words, "--output", str(case / "out.json")) == 0
        classes = json.loads((case / "out.json").read_text())["classes"]
        assert {name: row["TP"] for name, row in classes.items()} == {"1": 6, "3": 2, "any class": 8}
        assert "2 classes" in capsys.readouterr().out
    assert main(["--benchmark", "tao", "--gt", "x", "--results", "y", "--classes", "1"]) == 2
    assert "classes is no option of benchmark tao" in capsys.readouterr().err
