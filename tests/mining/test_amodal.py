"""Boxes that leave their picture, from mining to training: sequences and pictures of people in one data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make_media import make_coco, make_crowdhuman, make_mot
from tests.runs import rows, tars
from tests.sidecars.test_loader import sample_of
from trackmill.jobs import inspect_shards, mine_proposals
from trackmill.pipeline.loader.clips import ClipSettings, ClipSources, make_clip
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.tasks.masa.objects import ObjectSettings, draw_picture
from trackmill.schemas.config import ConfigError
from trackmill.schemas.keys import identity_key

ROWS = "".join(f"{frame},{who},{x},10,40,60,1,1,1\n" for frame in range(1, 9) for who, x in ((3, -20), (7, 30)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("raw")
    sequence = make_mot(folder / "mot", num_frames=8)
    (sequence / "gt" / "gt.txt").write_text(ROWS)
    make_crowdhuman(folder / "crowd", 2)
    make_coco(folder / "coco", 2)
    return [str(folder / name) for name in ("mot", "crowd", "coco")]


def mine(inputs: list[str], output: Path, *options: str) -> str:
    words = ["--input", *inputs, "--output", str(output), "--executor", "inline", "--proposer", "annotations"]
    assert mine_proposals.main([*words, "--set", "read.frames_per_clip=4", *options]) == 0
    return str(output)


@pytest.fixture(scope="module")
def root(inputs, tmp_path_factory) -> str:
    return mine(inputs, tmp_path_factory.mktemp("mined") / "out", "--set", "read.amodal=true")


def test_it_verifies_and_is_looked_at(root, tmp_path, capsys):
    dataset = open_dataset(root)
    assert verify(root) == []
    assert len(dataset.stored) == 6
    for row in dataset.stored:
        record = read_row(dataset, row).record
        assert record.origin.amodal, "each of these sources may have such boxes"
        for frame in record.frames:
            visible = np.array(frame.proposals.boxes)
            assert visible.min() >= 0 and (visible <= [64, 48, 64, 48]).all(), "proposals lie in the picture"
            assert len(frame.objects.boxes) == len(visible)
    assert inspect_shards.main([root, "--stats"]) == 0
    assert inspect_shards.main([root, "--html", str(tmp_path / "sheet.html")]) == 0
    key = next(row.key for row in dataset.stored if row.key.startswith("mot"))
    assert inspect_shards.main([root, "--key", key, "--overlay", str(tmp_path / "clip.png")]) == 0
    capsys.readouterr()


def test_training_gets_them_as_stored_or_cut(root):
    first, second, picture = (sample_of(root, name) for name in ("-c000-", "-c001-", "crowdhuman-073271"))
    boxes, ids = first.objects(0)
    assert boxes.tolist() == [[-20, 10, 20, 70], [30, 10, 70, 70]] and ids.tolist() == [3, 7]
    assert first.source == "mot" and first.video == second.video and picture.video == "", "two clips of one video"
    keys = [identity_key(each.source, each.video, 3) for each in (first, second)]
    assert keys[0] == keys[1]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        settings = ClipSettings(frames=3, size=96, resize=(0.8, 1.2))
        example = make_clip(first, rng, settings, ClipSources())
        for own in example.boxes:
            assert own.min() >= 0 and own.max() <= 96
        view = draw_picture(picture, rng, ObjectSettings())
        assert view.boxes.min() >= 0 and (view.boxes <= [64, 48, 64, 48]).all()
    loose = make_clip(first, np.random.default_rng(0), ClipSettings(frames=3, size=96, clip=False), ClipSources())
    assert min(own.min() for own in loose.boxes) < 0, "where boxes may leave the view they stay whole"


def test_going_on_changes_nothing_and_another_choice_is_refused(inputs, root, capsys):
    before = tars(Path(root))
    mine(inputs, Path(root), "--set", "read.amodal=true")
    assert tars(Path(root)) == before and len(rows(Path(root))) == 6
    words = ["--input", *inputs, "--output", root, "--executor", "inline", "--proposer", "annotations"]
    assert mine_proposals.main([*words, "--set", "read.frames_per_clip=4"]) == 2
    assert "amodal" in capsys.readouterr().err


def test_what_people_have_keeps_its_fingerprint_and_its_records(inputs, tmp_path):
    out = mine(inputs[:1], tmp_path / "out")
    dataset = open_dataset(out)
    sample = read_row(dataset, dataset.stored[0])
    assert not sample.record.origin.amodal
    assert b"amodal" not in Path(out, "shards", dataset.stored[0].shard).read_bytes()
    assert b'"amodal":' not in b"".join(path.read_bytes() for path in Path(out, "receipts").iterdir())

    def parts(**more) -> str:
        return prepare_mining(
            mine_config({"source": "auto", **more}, "test"), inputs, str(tmp_path / "new")
        ).fingerprint

    assert parts() == parts(read={"amodal": False}) == parts(source_settings={"box": "full", "classes": ""})
    assert len({parts(), parts(read={"amodal": True}), parts(source_settings={"box": "visible"})}) == 3


def test_auto_has_the_settings_of_every_source():
    config = mine_config({"source_settings": {"classes": "person", "box": "visible", "fps": 24}}, "test")
    assert config.source_settings.model_dump() == {"classes": "person", "empty": True, "box": "visible", "fps": 24}
    with pytest.raises(ConfigError, match=r"unknown key 'source_settings\.clases'; did you mean"):
        mine_config({"source_settings": {"clases": "person"}}, "test")
    with pytest.raises(ConfigError, match=r"source_settings\.fps"):
        mine_config({"source_settings": {"fps": -1}}, "test")
    with pytest.raises(ConfigError, match=r"source_settings\.box"):
        mine_config({"source": "crowdhuman", "source_settings": {"box": "head"}}, "test")
