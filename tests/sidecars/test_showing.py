"""What people see of a sidecar: statistics, overlays and contact sheets; and nothing new where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_dataset import make_dataset
from trackmill.jobs.inspect_shards import main
from trackmill.pipeline.media.drawing.palette import SIDECAR
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.run import make_sidecar

PRODUCER = "tests.sidecars.producers:Brightness"


@pytest.fixture
def root(tmp_path: Path) -> str:
    url = make_dataset(str(tmp_path / "set")).root
    make_sidecar(url, "brightness", PRODUCER)
    make_sidecar(url, "chains", settings={"min_iou": 0.3})
    return url


def key_of(root: str, name: str) -> str:
    return next(row.key for row in open_dataset(root).stored if name in row.key)


def test_statistics(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([root, "--stats"]) == 0
    out = capsys.readouterr().out
    assert "sidecar brightness  18 rows about 5 samples, in 2 parts" in out and "by brightness/1" in out
    assert main([root, "--stats", "--json"]) == 0
    brightness, chains = json.loads(capsys.readouterr().out)["sidecars"]
    assert (brightness["rows"], brightness["missing"], chains["name"]) == (18, 0, "chains")
    assert sum(brightness["words"]["label"].values()) == 18
    least, mean, most = brightness["numbers"]["mean"]
    assert 0 < least < mean < most < 255
    Path(root, "sidecars", "chains", "part-00000000.parquet").unlink()
    assert main([root, "--stats"]) == 0
    assert "1 more are missing" in capsys.readouterr().out


def test_an_overlay_shows_the_boxes(root: str, tmp_path: Path) -> None:
    key = key_of(root, "pic1")
    for name, more in (("plain.png", []), ("boxes.png", ["--sidecar", "brightness"])):
        assert main([root, "--key", key, "--overlay", str(tmp_path / name), *more]) == 0
    plain, boxes = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "boxes.png"))
    changed = (plain != boxes).any(axis=2)
    assert changed.any() and (boxes[changed] == SIDECAR).all()


def test_a_contact_sheet_has_a_layer_of_them(root: str, tmp_path: Path) -> None:
    for name, more in (("plain.html", []), ("chains.html", ["--sidecar", "chains"])):
        assert main([root, "--html", str(tmp_path / name), *more]) == 0
    plain, chains = ((tmp_path / name).read_text() for name in ("plain.html", "chains.html"))
    assert "sidecar" not in plain
    assert '<g class="layer sidecar">' in chains and "chain 0, proposal 0, score 0.9, iou" in chains
    assert 'id="show-sidecar"' in chains and chains.count("<svg") == plain.count("<svg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # a name that does not exist, no place to draw on, tars alone
        (["--html", "{tmp}/x.html", "--sidecar", "chain"], "no sidecar 'chain' (there are brightness, chains)"),
        (["--sidecar", "chains"], "--sidecar draws boxes: say where"),
    ],
)
def test_mistakes(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([root, *(word.format(tmp=tmp_path) for word in words)]) == 2
    assert message in capsys.readouterr().err
