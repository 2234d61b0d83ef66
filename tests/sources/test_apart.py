"""Annotations in a folder of their own: each goes to the file of its name in the folder beside, or to none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.make_media import make_mot, make_sa1b_folder, make_sav_train
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.apart import partner_folders
from trackmill.pipeline.sources.base import ReadSettings

SETTINGS = ReadSettings(frames_per_clip=4, label_fps=30)


def moved(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.move(path, folder / path.name)


def identities(url: Path) -> list[list[list[int]]]:
    """Ids of every frame of every item, `auto` having looked."""
    items, _, unclaimed = claim_all([str(url)], "auto", SETTINGS)
    assert not unclaimed
    sources = {item.source: open_source(item.source, SETTINGS) for item in items}
    return [[frame.annotations.ids for frame in sources[item.source].read(item).frames] for item in items]


@pytest.mark.parametrize(
    ("pictures", "notes"),
    [("images", "annotations"), ("train/images/sa_000000", "train/json/sa_000000"), (".", "annotations"), ("img", ".")],
)
def test_sa1b_as_images_and_annotations(tmp_path, pictures, notes):
    made = make_sa1b_folder(tmp_path / "made", 2)
    for folder, paths in ((pictures, made), (notes, [path.with_suffix(".json") for path in made])):
        target = tmp_path / "data" / folder
        target.mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copy(path, target)
    assert identities(tmp_path / "data") == [[[1000, 1001, 1002]], [[2000, 2001, 2002]]]


def test_sav_as_videos_and_annotations(tmp_path):
    make_sav_train(tmp_path / "videos", num_frames=5)
    moved(list((tmp_path / "videos").glob("*.json")), tmp_path / "annotations")
    assert identities(tmp_path) == [[[0, 1, 1000000], [1, 1000000]]]


def test_mot_as_images_and_annotations(tmp_path):
    sequence = make_mot(tmp_path / "images", "A", num_frames=2)
    moved([sequence / "gt" / "gt.txt"], tmp_path / "annotations" / "A" / "gt")
    assert identities(tmp_path) == [[[1, 2], [1, 2]]]


def test_two_folders_of_pictures_are_not_guessed_between(tmp_path):
    """Which size the masks were drawn on cannot be known."""
    made = make_sa1b_folder(tmp_path / "images", 1)[0]
    (tmp_path / "images_small").mkdir()
    shutil.copy(made, tmp_path / "images_small")
    moved([made.with_suffix(".json")], tmp_path / "annotations")
    items, _, _ = claim_all([str(tmp_path)], "auto", SETTINGS)
    source = open_source("sa1b", SETTINGS)
    assert len(items) == 3
    for item in items:
        with pytest.raises(BadItem, match=r"picture is missing|no JSON lies beside"):
            source.read(item)


@pytest.mark.parametrize(
    ("media", "annotations", "together"),
    [
        ("r/images", "r/annotations", True),
        ("r/images/a", "r/labels/a", True),
        ("r/images/a", "r/annotations/b", False),
        ("r/train", "r/val", False),  # another split, not annotations
        ("r", "r/gt", True),
        ("r", "s/gt", False),
    ],
)
def test_which_folders_belong_together(media, annotations, together):
    assert partner_folders([media], [annotations]) == {annotations: [media] if together else []}
