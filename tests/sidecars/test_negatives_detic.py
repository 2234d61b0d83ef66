"""Pseudo-negatives of a small Detic: weights and vocabulary are the same for all workers, in one pass and in two."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.detic.rebuild import SMALL, small_network
from tests.detic.test_loading import _small_variant  # noqa: F401  # a fixture: the small network loads as swinb
from tests.make_media import make_sa1b_folder, make_sav_train
from tests.sidecars.test_negatives import INLINE, parts_of
from tests.sidecars.test_negatives import SMALL as SMALL_UNITS
from tests.sidecars.test_same_bytes import files
from trackmill.jobs.inspect_shards import main as inspect
from trackmill.jobs.mine_negatives import main as mine_negatives
from trackmill.jobs.mine_proposals import main as mine
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import read_about
from trackmill.pipeline.vocabulary import vocabulary_bytes
from trackmill.schemas.boxes import iou_matrix


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small_detic.pth"
    torch.save({"model": small_network(4).state_dict()}, path)
    return path


def vocabulary(path: Path, seed: int) -> Path:
    vectors = np.random.default_rng(seed).standard_normal((3, SMALL.embedding)).astype(np.float32)
    path.write_bytes(vocabulary_bytes(Vocabulary(embeddings=vectors, names=("person", "dog", "traffic light"))))
    return path


def test_one_pass_and_two_are_the_same_bytes_and_every_worker_has_the_same_vocabulary(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sa1b_folder(tmp_path / "in", count=2, height=64, width=96)
    make_sav_train(tmp_path / "in", num_frames=13)
    classes = vocabulary(tmp_path / "classes.npz", 1)
    words = ["--input", str(tmp_path / "in"), *INLINE, *SMALL_UNITS]
    settings = {"classes": f"'{classes}'", "min_score": "0.05", "device": "'cpu'", "options.short_side": "96"}
    inside = [word for key, value in settings.items() for word in ("--set", f"sidecars.negatives.{key}={value}")]
    asked = ["--negatives", "detic", "--negatives-weights", str(weights), *inside]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert mine([*words, "--output", one, *asked]) == 0
    assert mine([*words, "--output", two]) == 0
    command = ["--data", two, "--detector", "detic", "--weights", str(weights), "--min-score", "0.05", *INLINE]
    command += ["--set", "device='cpu'", "--set", "options.short_side=96"]
    assert mine_negatives([*command, "--classes", str(classes)]) == 0
    assert files(Path(one), "sidecars") == files(Path(two), "sidecars")

    about = read_about(Layout(one), "negatives")
    shared = Path(one, "sidecars", "negatives", "vocabulary.npz")
    assert about.files == {"vocabulary.npz": hashlib.sha256(shared.read_bytes()).hexdigest()}
    dataset, rows = open_dataset(one), 0
    parts = {part.about.unit: part for part in parts_of(one)}
    for row in dataset.stored:
        record, found = read_row(dataset, row).record, parts[row.unit].of_sample(row.key)
        assert set(found["label"]) <= {"person", "dog", "traffic light"} and set(found["detector"]) <= {"detic"}
        assert (found["score"] >= np.float32(0.05)).all()
        for number, frame in enumerate(record.frames):
            boxes = found["box"][found["frame"] == number]
            objects = np.array(frame.objects.boxes if frame.objects else [], np.float32).reshape(-1, 4)
            assert not (iou_matrix(boxes, objects) >= 0.5).any()
            rows += len(boxes)
    assert rows > 0

    capsys.readouterr()
    other = vocabulary(tmp_path / "other.npz", 2)
    assert mine_negatives([*command, "--classes", str(other)]) == 2
    err = capsys.readouterr().err
    assert (
        "files.vocabulary.npz" in err
        and f"classes was {str(classes)!r}, now {str(other)!r}" in err
        and err.count("\n") == 1
    )
    torch.save({"model": small_network(4).state_dict(), "iteration": 3}, tmp_path / "others.pth")
    command[command.index(str(weights))] = str(tmp_path / "others.pth")
    assert mine_negatives([*command, "--classes", str(classes)]) == 2
    err = capsys.readouterr().err
    assert "weights_sha256" in err and f"weights was {str(weights)!r}, now {str(tmp_path / 'others.pth')!r}" in err

    shared.write_bytes(shared.read_bytes()[:-1] + b"x")
    assert inspect([one, "--verify"]) == 1
    assert "sidecars/negatives/vocabulary.npz: is damaged" in capsys.readouterr().out
    assert mine([*words, "--output", one, *asked]) == 0, "the same command mends it"
    assert inspect([one, "--verify"]) == 0
