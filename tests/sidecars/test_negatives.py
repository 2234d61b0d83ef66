"""Pseudo-negatives as a sidecar: the rule holds for stored rows, in one pass and in two, and after every fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make_dataset import make_dataset
from tests.make_media import make_pictures, make_sa1b_folder, make_sav_train
from tests.runs import ROOT, job_environment, wait_for
from tests.shared_data import DATA, needs_data
from tests.sidecars.detectors import Refusing, Windows
from tests.sidecars.test_loader import sample_of
from tests.sidecars.test_same_bytes import files
from trackmill.jobs.inspect_shards import main as inspect
from trackmill.jobs.mine_negatives import main as mine_negatives
from trackmill.jobs.mine_proposals import main as mine
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import read_about
from trackmill.pipeline.sidecars.part import part_bytes, read_part
from trackmill.pipeline.sidecars.run import make_sidecar

WINDOWS = "tests.sidecars.detectors:Windows"
INLINE = ["--executor", "inline"]
SMALL = ["--set", "shards.unit_frames=4", "--set", "shards.max_samples=2", "--set", "graph.backend=skimage"]


def iou(a: list[float], b: list[float]) -> float:
    """Of two boxes, in the plainest way."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def parts_of(root: str, name: str = "negatives") -> list[Any]:
    layout = Layout(root)
    columns = read_about(layout, name).columns
    paths = sorted(Path(layout.sidecar(name)).glob("part-*"))
    return [read_part(str(path), path.name, columns) for path in paths]


def expected_of(sample: Sample, min_score: float, max_iou: float) -> tuple[list[tuple[Any, ...]], Counter[str]]:
    """Rows and counts of a sample with the detector `Windows`, one box after the other."""
    rows, counts = [], Counter({"frames": len(sample.record.frames)})
    height, width = sample.record.stored.height, sample.record.stored.width
    for number, frame in enumerate(sample.record.frames):
        if frame.objects is None or not sample.record.origin.annotated:
            counts["frames not annotated"] += 1
            continue
        (found,) = Windows().detect([sample.image(number)])
        own = []
        for box, score, label in zip(found.boxes.tolist(), found.scores, found.labels.tolist()):
            x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
            if score < np.float32(min_score):
                counts["below the score"] += 1
            elif x1 <= x0 or y1 <= y0:
                counts["outside the frame"] += 1
            elif any(iou([x0, y0, x1, y1], other) >= max_iou for other in frame.objects.boxes):
                counts["overlaps an object"] += 1
            else:
                own.append((number, [x0, y0, x1, y1], score, Windows.names[label], "Windows"))
        rows += sorted(own, key=lambda row: -row[2])
        counts["kept"] += len(own)
    return rows, counts


def check(root: str, min_score: float = 0.3, max_iou: float = 0.5) -> Counter[str]:
    """Every row and every count of the sidecar, against the shards; returns the counts."""
    dataset, total = open_dataset(root), Counter[str]()
    parts = {part.about.unit: part for part in parts_of(root)}
    for row in dataset.stored:
        rows, counts = expected_of(read_row(dataset, row), min_score, max_iou)
        found = parts[row.unit].of_sample(row.key)
        assert found["frame"].tolist() == [each[0] for each in rows]
        assert np.allclose(found["box"], np.array([each[1] for each in rows]).reshape(-1, 4), atol=1e-4)
        assert found["score"].tolist() == [each[2] for each in rows]
        assert found["label"].tolist() == [each[3] for each in rows]
        assert found["detector"].tolist() == [each[4] for each in rows]
        total.update(counts)
    told = Counter[str]()
    for part in parts.values():
        told.update(part.about.counts)
    assert +told == +total
    return total


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotated pictures and an annotated video, of which the first frames alone are annotated; two bare pictures."""
    folder = tmp_path_factory.mktemp("media")
    make_sa1b_folder(folder, count=3, height=96, width=128)
    make_sav_train(folder, num_frames=25, size=(96, 128))
    make_pictures(folder / "bare", count=2)
    return folder


@pytest.fixture(scope="module")
def one_pass(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that was mined with negatives in the same pass."""
    output = tmp_path_factory.mktemp("one") / "set"
    command = ["--input", str(media), "--output", str(output), *INLINE, *SMALL, "--negatives", WINDOWS]
    assert mine(command) == 0
    return output


def test_in_one_pass_and_in_two_the_rows_obey_the_rule(
    media: Path, one_pass: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = check(str(one_pass))
    assert min(total[name] for name in ("kept", "below the score", "overlaps an object", "frames not annotated")) > 0
    two = str(tmp_path / "two")
    assert mine(["--input", str(media), "--output", two, *INLINE, *SMALL]) == 0
    command = ["--data", two, "--detector", WINDOWS, *INLINE]
    assert mine_negatives([*command, "--plan-only", "--usd-per-gpu-hour", "2"]) == 0
    told = capsys.readouterr().out
    assert "samples, " in told and "price      unknown: there is no GPU" in told and not Path(two, "sidecars").exists()
    assert mine_negatives(command) == 0
    told = capsys.readouterr().out
    assert f"{total['kept']} kept" in told and f"{total['overlaps an object']} overlaps an object" in told
    assert files(Path(two), "sidecars") == files(one_pass, "sidecars")
    assert mine_negatives(command) == 0 and "nothing was left to do" in capsys.readouterr().out
    assert inspect([two, "--verify"]) == 0 and "sidecars negatives" in capsys.readouterr().out


def test_thresholds_are_settings_and_other_ones_are_refused(
    one_pass: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    command = ["--data", root, "--detector", WINDOWS, *INLINE]
    assert mine_negatives([*command, "--min-score", "0.1", "--max-iou", "0.2"]) == 0
    check(root, 0.1, 0.2)
    assert mine_negatives([*command, "--min-score", "0.1"]) == 2
    assert "producer.settings.max_iou: 0.2 -> 0.5" in capsys.readouterr().err
    capsys.readouterr()
    assert mine_negatives([*command, "--name", "others"]) == 0, "a second one beside it"
    assert f"trackmill audit {root} --sidecar others --html" in capsys.readouterr().out


def test_stored_proposals_are_negatives_by_the_same_rule(one_pass: Path, tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    assert mine_negatives(["--data", root, "--detector", "proposals", *INLINE, "--min-score", "0.45"]) == 0
    dataset = open_dataset(root)
    parts = {part.about.unit: part for part in parts_of(root)}
    kept = 0
    for row in dataset.stored:
        sample = read_row(dataset, row)
        found = parts[row.unit].of_sample(row.key)
        expected = [
            (number, frame.proposals.boxes[i], np.float32(frame.proposals.scores[i]))
            for number, frame in enumerate(sample.record.frames)
            for i in frame.proposals.negatives
            if frame.proposals.scores[i] >= 0.45
            and all(iou(frame.proposals.boxes[i], other) < 0.5 for other in frame.objects.boxes)  # type: ignore[union-attr]
        ]
        assert list(zip(found["frame"].tolist(), found["box"].tolist(), found["score"])) == expected
        assert set(found["detector"]) <= {"graph/1"} and set(found["label"]) <= {""}
        kept += len(expected)
    assert 0 < kept < sum(row.negatives for row in dataset.stored), "the score counts, too"
    told = ["--set", "sidecars.negatives.detector='proposals'"]
    assert mine(["--output", str(tmp_path / "x"), *INLINE, "--negatives", WINDOWS, *told]) == 2, "two detectors"


def test_a_killed_second_pass_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    root, other = (make_dataset(str(tmp_path / name), num_images=1).root for name in ("set", "whole"))
    words = ["--detector", "tests.sidecars.detectors:Slow", *INLINE]
    command = [sys.executable, str(ROOT / "jobs" / "mine_negatives.py"), "--data", root, *words]
    process = subprocess.Popen(command, cwd=ROOT, env=job_environment(SLOW_DETECTOR_S="1.5"))
    folder = Path(Layout(root).sidecar("negatives"))
    wait_for(lambda: list(folder.glob("part-*")), "the first part", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert set(first) == {"part-00000000.parquet"}, "killed too late to prove anything"
    for each in (root, other):
        assert mine_negatives(["--data", each, *words]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*") if path.name in first} == first
    assert files(Path(root), "sidecars") == files(Path(other), "sidecars")


def test_a_sample_that_the_detector_fails_on_is_quarantined_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, other = (make_dataset(str(tmp_path / name)).root for name in ("set", "whole"))
    dataset = open_dataset(root)
    bad = read_row(dataset, dataset.stored[1])
    monkeypatch.setattr(Refusing, "refuses", {tuple(bad.image(0)[0, 0].tolist())})
    words = ["--detector", "tests.sidecars.detectors:Refusing", *INLINE]
    assert mine_negatives(["--data", root, *words, "--max-quarantined", "0"]) == 3
    told = capsys.readouterr()
    assert f"quarantined: {bad.key}: ArithmeticError: this frame cannot be looked at" in told.err
    assert "1 quarantined samples are more than --max-quarantined 0 allows" in told.out
    assert mine_negatives(["--data", root, *words, "--max-quarantined", "25%"]) == 0
    assert [len(part.about.quarantined) for part in parts_of(root)] == [1, 0]
    assert inspect([root, "--verify"]) == 0 and "1 samples are quarantined in it" in capsys.readouterr().err
    Path(root, "sidecars", "negatives", "part-00000001.parquet").unlink()
    assert inspect([root, "--verify"]) == 0
    assert f"1 of 2 parts are missing; trackmill negatives --data {root} --detector" in capsys.readouterr().err
    assert mine_negatives(["--data", root, *words]) == 0
    monkeypatch.setattr(Refusing, "refuses", set())
    assert mine_negatives(["--data", root, *words, "--only-quarantined"]) == 0
    assert mine_negatives(["--data", other, *words]) == 0
    assert files(Path(root), "sidecars") == files(Path(other), "sidecars")


def test_verify_finds_what_does_not_belong_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, other = make_dataset(str(tmp_path / "set")).root, make_dataset(str(tmp_path / "other"), num_frames=7).root
    for each in (root, other):
        make_sidecar(each, "negatives", settings={"detector": WINDOWS})
    folder = Path(root, "sidecars", "negatives")
    path = folder / "part-00000001.parquet"
    whole = path.read_bytes()

    def faults() -> str:
        capsys.readouterr()
        assert inspect([root, "--verify", "--json"]) == 1
        return json.dumps(json.loads(capsys.readouterr().out), ensure_ascii=False)

    path.write_bytes(Path(other, "sidecars", "negatives", path.name).read_bytes())
    assert "was made for another part-00000001.tar" in faults()

    path.write_bytes(whole)
    read = read_part_of(path, root)
    values = read.table.to_pydict()
    values["box"][0] = box_of_an_object(root)
    path.write_bytes(part_bytes(read.about, table_like(read, values)))
    assert "of frame 0 overlaps an annotated object by 0.5 or more" in faults()

    values = read.table.to_pydict()
    values["score"][0] = 0.2
    path.write_bytes(part_bytes(read.about, table_like(read, values)))
    assert "a score of frame 0, 0.2, is below 0.3" in faults()

    path.write_bytes(part_bytes(read.about, read.table.slice(0, read.table.num_rows - 1)))
    assert "rows as kept, and has" in faults()


def read_part_of(path: Path, root: str) -> Any:
    return read_part(str(path), path.name, read_about(Layout(root), "negatives").columns)


def table_like(read: Any, values: dict[str, list[Any]]) -> Any:
    import pyarrow as pa

    return pa.table(values, schema=read.table.schema.remove_metadata())


def box_of_an_object(root: str) -> list[float]:
    """An annotated object of the first frame of the clip."""
    dataset = open_dataset(root)
    objects = read_row(dataset, dataset.stored[-1]).record.frames[0].objects
    assert objects is not None
    return objects.boxes[0]


def test_the_loader_gives_them_by_frame(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    make_sidecar(root, "negatives", settings={"detector": WINDOWS})
    clip = sample_of(root, "bikes")
    for frame in range(clip.num_frames):
        rows = clip.sidecar("negatives", frame)
        assert rows["box"].dtype == np.float32 and rows["box"].shape == (len(rows["score"]), 4) and len(rows["box"])
        objects = clip.objects(frame)
        assert objects is not None
        assert max(iou(a, b) for a in rows["box"].tolist() for b in objects[0].tolist()) < 0.5


def test_of_frames_that_nobody_annotated_nothing_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pictures(tmp_path / "in", count=2)
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "set"), *INLINE]
    assert mine(words) == 0
    assert mine_negatives(["--data", str(tmp_path / "set"), "--detector", WINDOWS, *INLINE]) == 0
    told = capsys.readouterr()
    assert (
        "counted: 0 kept, 2 frames, 2 frames not annotated" in told.out
        and "not one frame here is annotated" in told.err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--negatives-weights", "x.pth"], "--negatives-weights: whose? --negatives DETECTOR names the detector"),
        (["--negatives", "detic"], "negatives: detic needs a checkpoint: --weights URL, or --negatives-weights URL"),
        (["--negatives", "detik"], "did you mean 'detic'"),
        (["--negatives", "proposals", "--negatives-weights", "x.pth"], "stored with the samples; leave out weights"),
        (["--negatives", "proposals", "--set", "sidecars.negatives.max_iuo=1"], "did you mean 'max_iou'?"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    make_pictures(tmp_path / "in", count=1)
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *INLINE]
    assert mine([*words, *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1, err


@needs_data("mot17_mini", "images")
def test_real_pictures_and_a_real_clip(tmp_path: Path) -> None:
    """MOT17 has ignored regions: proposals inside them are no negatives, which the shards say by their indices."""
    inputs = [str(DATA / "mot17_mini"), str(DATA / "images" / "dogs.jpg")]
    words = ["--input", *inputs, *INLINE, *SMALL, "--set", "read.longest_side=256"]
    assert mine([*words, "--output", str(tmp_path / "one"), "--negatives", WINDOWS]) == 0
    assert mine([*words, "--output", str(tmp_path / "two")]) == 0
    assert mine_negatives(["--data", str(tmp_path / "two"), "--detector", WINDOWS, *INLINE]) == 0
    assert files(tmp_path / "one", "sidecars") == files(tmp_path / "two", "sidecars")
    total = check(str(tmp_path / "one"))
    assert total["overlaps an object"] > 0 and total["frames not annotated"] == 1
