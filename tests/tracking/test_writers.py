"""Files of tracks: read back by the readers of evaluation and of detections, and never half there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from pycocotools import mask as pycoco

from tests.tracking.make_tracking import make_frame, source_frame, tracked_objects
from trackmill.pipeline.evaluation.readers.coco_video import read_coco_video
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.tracking.detection_files import read_detections
from trackmill.pipeline.tracking.image_table import ImageTable
from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter, TrackWriter
from trackmill.schemas.masks import crop_mask, paste_mask

NAMES, IDS = ("cat", "dog"), (90, 17)
BOXES = np.array([[340.829, 79.4999, 428.491, 323.75], [-3.5, 2, 8, 61.25]], np.float32)


def masks() -> list:
    full = np.zeros((60, 100), bool)
    full[5:9, 7:30] = True
    return [None, crop_mask(full)]


def write_all(writer: TrackWriter, with_masks: bool = True) -> Path:
    """Frame 0 with two objects, frame 1 with none, frame 2 with one of them."""
    columns = {"scores": [0.123456789, 1], "labels": [1, 0], "names": NAMES, "masks": masks() if with_masks else None}
    writer.write(source_frame(0), tracked_objects(BOXES, [5, 0], **columns))
    writer.write(source_frame(1), tracked_objects(np.zeros((0, 4)), [], names=NAMES))
    writer.write(source_frame(2), tracked_objects(BOXES[1:], [0], names=NAMES))
    return Path(writer.finish())


def test_mot_text(tmp_path: Path) -> None:
    path = write_all(MotWriter(str(tmp_path / "clip.txt"), IDS))
    assert path.read_text().splitlines() == [
        "1,5,340.829,79.500,87.662,244.250,0.123457,17,-1,-1",
        "1,0,-3.500,2.000,11.500,59.250,1,90,-1,-1",
        "3,0,-3.500,2.000,11.500,59.250,1,90,-1,-1",
    ]
    rows = parse_mot_text(path.read_bytes(), str(path))
    assert rows.boxes[0] == pytest.approx(BOXES[0], abs=1e-3)
    single = MotWriter(str(tmp_path / "single.txt"), (90,))
    single.write(source_frame(0), tracked_objects(BOXES, [1, 2]))
    assert Path(single.finish()).read_text().splitlines()[1].endswith(",-1,-1,-1"), "one class needs no name"


def test_coco_video(tmp_path: Path) -> None:
    path = write_all(CocoWriter(str(tmp_path / "clip.json"), "clip", NAMES, IDS))
    content = json.loads(path.read_text())
    assert [(image["id"], image["frame_index"], image["height"]) for image in content["images"]] == [
        (1, 0, 60),
        (2, 1, 60),
        (3, 2, 60),
    ]
    assert [row["image_id"] for row in content["annotations"]] == [1, 1, 3]
    assert content["annotations"][0]["bbox"] == pytest.approx([340.829, 79.5, 87.662, 244.25])
    assert content["categories"] == [{"id": 90, "name": "cat"}, {"id": 17, "name": "dog"}]
    decoded = pycoco.decode(content["annotations"][1]["segmentation"])
    assert decoded.astype(bool)[5:9, 7:30].all()
    assert decoded.sum() == content["annotations"][1]["area"] == 92
    assert pycoco.area(content["annotations"][0]["segmentation"]) == 0

    plain = write_all(CocoWriter(str(tmp_path / "plain.json"), "clip", NAMES, IDS), with_masks=False)
    (video,) = read_coco_video(str(plain), str(plain)).videos
    assert video.video.num_frames == 3
    assert video.video.predictions.ids.tolist() == [5, 0, 0]
    assert video.video.predictions.labels.tolist() == [17, 90, 90]
    assert video.video.predictions.boxes[1] == pytest.approx(BOXES[1])


def test_results_for_a_data_set(tmp_path: Path) -> None:
    """Ids of the data set; the frame it does not know is left out."""
    table = ImageTable(frames={70: 0, 71: 1}, others=frozenset(), video_id=4, category_ids=IDS, category_names=NAMES)
    path = write_all(CocoWriter(str(tmp_path / "clip.json"), "clip", NAMES, IDS, table, bare=True), with_masks=False)
    rows = json.loads(path.read_text())
    assert [(row["image_id"], row["video_id"], row["track_id"], row["category_id"]) for row in rows] == [
        (70, 4, 5, 17),
        (70, 4, 0, 90),
    ]


def test_parquet(tmp_path: Path) -> None:
    path = write_all(ParquetWriter(str(tmp_path / "clip.parquet"), NAMES, IDS))
    table = pyarrow.parquet.read_table(path)
    assert table.column("id").to_pylist() == [5, 0, 0]
    assert table.column("frame").to_pylist() == [0, 0, 2]
    assert table.column("time_s").to_pylist() == [0.0, 0.0, 0.2]
    found = read_detections(str(path), "clip", {})
    first, _, third = found.detect([make_frame(0)] * 3)
    assert (first.boxes == BOXES).all()
    assert [found.names[label] for label in first.labels] == ["dog", "cat"]
    assert first.scores[0] == np.float32(0.123456789)
    assert first.masks[0] is None
    assert (paste_mask(first.masks[1], 60, 100) == paste_mask(masks()[1], 60, 100)).all()
    assert third.masks == (None,)


def make_writers(folder: Path) -> list[TrackWriter]:
    return [
        MotWriter(str(folder / "clip.txt"), IDS),
        CocoWriter(str(folder / "clip.json"), "clip", NAMES, IDS),
        CocoWriter(str(folder / "list.json"), "clip", NAMES, IDS, bare=True),
        ParquetWriter(str(folder / "clip.parquet"), NAMES, IDS),
    ]


def test_nothing_has_its_name_before_it_is_complete(tmp_path: Path) -> None:
    for writer in make_writers(tmp_path):
        writer.write(source_frame(0), tracked_objects(BOXES, [1, 2], names=NAMES))
        assert not Path(writer.url).exists()
        writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_no_frame_and_no_object(tmp_path: Path) -> None:
    for writer in make_writers(tmp_path):
        path = Path(writer.finish())
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            assert (content if isinstance(content, list) else content["annotations"]) == []
    assert len(list(tmp_path.iterdir())) == 4
    assert pyarrow.parquet.read_table(tmp_path / "clip.parquet").num_rows == 0
