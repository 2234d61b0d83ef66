"""Data sets in other formats, each read back by somebody else than who wrote it, or by a source of ours."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.mask import iou as mask_iou

from tests.datasets.test_derive import another, files, samples, with_sidecar
from tests.make_dataset import make_dataset, make_item, make_media, write_samples
from trackmill.jobs.export_data import FORMATS as OFFERED
from trackmill.jobs.main import main
from trackmill.pipeline.datasets.formats.export import FORMATS
from trackmill.pipeline.datasets.formats.polygons import polygons
from trackmill.pipeline.evaluation.readers.coco_index import read_index
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.schemas.masks import crop_mask, to_coco_rle


def stored(layout: Layout) -> list[Sample]:
    """All samples."""
    dataset = open_dataset(layout.root)
    return [read_row(dataset, row) for row in dataset.stored]


def write(layout: Layout, output: Path, *options: str) -> None:
    assert main(["export-data", layout.root, "--output", str(output), *options]) == 0


def mined_again(folder: Path, source: str, output: Path) -> list[Sample]:
    """What a source of ours reads out of an export."""
    words = ["mine", "--input", str(folder), "--source", source, "--output", str(output), "--proposer", "annotations"]
    assert main([*words, "--executor", "inline"]) == 0
    return stored(Layout(str(output)))


def boxes(sample: Sample, frame: int) -> np.ndarray:
    objects = sample.record.frames[frame].objects
    assert objects is not None
    return np.array(objects.boxes, np.float64).reshape(-1, 4)


def test_names_are_those_of_the_command() -> None:
    assert tuple(FORMATS) == OFFERED


@pytest.mark.parametrize("masks", ["rle", "polygon", "none"])
def test_coco_is_read_by_pycocotools_and_by_our_source(tmp_path: Path, masks: str) -> None:
    layout = make_dataset(str(tmp_path / "set"), height=120, width=160)
    write(layout, tmp_path / "coco", "--format", "coco", "--masks", masks)
    path = tmp_path / "coco" / "annotations" / "instances_train.json"
    coco = COCO(str(path))
    assert len(coco.imgs) == 4 + 10
    before = stored(layout)
    frames = [(sample, number) for sample in before for number in range(len(sample.jpegs))]
    for (sample, number), image in zip(frames, coco.imgs.values(), strict=True):
        assert (tmp_path / "coco" / "train" / image["file_name"]).read_bytes() == sample.jpegs[number]
        rows = coco.loadAnns(coco.getAnnIds(image["id"]))
        np.testing.assert_allclose([row["bbox"][:2] for row in rows], boxes(sample, number)[:, :2], atol=0.011)
        for row, mask in zip(rows, sample.objects_masks(number), strict=True):
            assert mask is not None and ("segmentation" in row) == (masks != "none")
            if masks != "none":
                whole = to_coco_rle(mask, image["height"], image["width"])
                whole["counts"] = str(whole["counts"]).encode()
                overlap = mask_iou([coco.annToRLE(row)], [whole], [0])[0, 0]
                assert overlap == 1 if masks == "rle" else overlap > 0.93
    licenses = {entry["id"]: entry["name"] for entry in json.loads(path.read_text())["licenses"]}
    assert {licenses[image["license"]] for image in coco.imgs.values()} == {"CC BY 4.0", "unknown"}
    mined = mined_again(tmp_path / "coco", "coco", tmp_path / "again")
    again = {Path(each.record.origin.uri).name: each for each in mined}
    for sample, number in frames:
        read = again[sample.record.frames[number].member]
        np.testing.assert_allclose(boxes(read, 0), boxes(sample, number), atol=0.021)
        assert read.jpegs[0] == sample.jpegs[number]
        if masks == "rle":
            assert read.objects_masks(0) == sample.objects_masks(number)


def test_mot_is_read_by_our_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "mot", "--format", "mot")
    assert "4 pictures, of which this format has none" in capsys.readouterr().err
    (clip,) = mined_again(tmp_path / "mot" / "train", "mot", tmp_path / "again")
    before = stored(layout)[-1]
    assert clip.jpegs == before.jpegs and clip.record.origin.fps == 6
    for number in range(10):
        np.testing.assert_allclose(boxes(clip, number), boxes(before, number), atol=0.021)
        found, was = clip.record.frames[number].objects, before.record.frames[number].objects
        assert found and was and found.ids == was.ids


def test_cvat_is_a_zip_of_the_same_rows(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "mot", "--format", "mot")
    write(layout, tmp_path / "cvat", "--format", "cvat")
    (path,) = (tmp_path / "cvat" / "train").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("gt/labels.txt") == b"object\n"
        assert archive.read("gt/gt.txt") == (tmp_path / "mot" / "train" / path.stem / "gt" / "gt.txt").read_bytes()
        assert [archive.read(f"img1/{number:06d}.jpg") for number in range(1, 11)] == stored(layout)[-1].jpegs
        assert len(archive.read("gt/gt.txt").decode().splitlines()[0].split(",")) == 9
    first = path.read_bytes()
    write(layout, tmp_path / "cvat", "--format", "cvat")
    assert path.read_bytes() == first


def test_coco_vid_is_read_as_ground_truth(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "vid", "--format", "coco-vid")
    path = tmp_path / "vid" / "annotations" / "train.json"
    found = json.loads(path.read_text())
    assert len(found["videos"]) == 1 and len(found["tracks"]) == 2 and len(found["images"]) == 10
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in found["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row)
    before = stored(layout)[-1]
    for number, image in enumerate(found["images"]):
        assert (tmp_path / "vid" / "train" / image["file_name"]).read_bytes() == before.jpegs[number]
        rows = by_image[image["id"]]
        np.testing.assert_allclose([row["bbox"][:2] for row in rows], boxes(before, number)[:, :2], atol=0.011)
        assert [row["track_id"] for row in rows] == [1, 2]  # their ids are 7 and 12 in each frame
    index = read_index(found, str(path))
    assert len(index.video_ids) == 1 and index.image_steps.tolist() == list(range(10))


def test_youtube_vis_has_a_row_a_track(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "vis", "--format", "youtube-vis")
    found = json.loads((tmp_path / "vis" / "train" / "instances.json").read_text())
    before = stored(layout)[-1]
    (video,) = found["videos"]
    assert video["length"] == 10 and len(found["annotations"]) == 2
    for number, name in enumerate(video["file_names"]):
        assert (tmp_path / "vis" / "train" / "JPEGImages" / name).read_bytes() == before.jpegs[number]
        for place, track in enumerate(found["annotations"]):
            mask = before.objects_masks(number)[place]
            assert mask is not None
            assert track["segmentations"][number] == to_coco_rle(mask, video["height"], video["width"])
            assert track["bboxes"][number][0] == boxes(before, number)[place][0]


@pytest.mark.parametrize("masks", ["none", "polygon"])
def test_yolo_rows_lie_in_the_picture(tmp_path: Path, masks: str) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "yolo", "--format", "yolo", "--masks", masks)
    write(layout, tmp_path / "yolo", "--format", "yolo", "--masks", masks, "--part", "val", "--max-samples", "2")
    for sample in stored(layout):
        for number, frame in enumerate(sample.record.frames):
            name = frame.member.removesuffix(".jpg")
            assert (tmp_path / "yolo" / "images" / "train" / f"{name}.jpg").read_bytes() == sample.jpegs[number]
            lines = (tmp_path / "yolo" / "labels" / "train" / f"{name}.txt").read_text().splitlines()
            rows = [np.array(line.split(), np.float64) for line in lines]
            assert all(row[0] == 0 and row.min() >= 0 and row.max() <= 1 for row in rows)
            size = np.array([sample.record.stored.width, sample.record.stored.height])
            for row, box in zip(rows, boxes(sample, number), strict=True):
                if masks == "none":
                    centre, shape = row[1:3] * size, row[3:] * size
                    np.testing.assert_allclose([*(centre - shape / 2), *(centre + shape / 2)], box, atol=0.01)
                else:
                    points = row[1:].reshape(-1, 2) * size
                    np.testing.assert_allclose([*points.min(0), *points.max(0)], box, atol=1)
    assert len(list((tmp_path / "yolo" / "images" / "val").iterdir())) == 2
    assert (tmp_path / "yolo" / "data.yaml").read_text() == (
        'train: images/train\nval: images/val\nnames:\n  0: "object"\n'
    )


def test_fiftyone_has_boxes_by_name(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "fiftyone", "--format", "fiftyone", "--boxes", "proposals")
    labels = json.loads((tmp_path / "fiftyone" / "train" / "labels.json").read_text())["labels"]
    before = stored(layout)
    assert len(labels) == 14 and all(
        (tmp_path / "fiftyone" / "train" / "data" / f"{name}.jpg").exists() for name in labels
    )
    found = labels[before[0].key]
    assert [entry["confidence"] for entry in found] == before[0].record.frames[0].proposals.scores
    x0, y0, x1, y1 = before[0].record.frames[0].proposals.boxes[0]
    np.testing.assert_allclose(found[0]["bounding_box"], [x0 / 64, y0 / 48, (x1 - x0) / 64, (y1 - y0) / 48], atol=1e-6)


def test_fiftyone_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own importer, which needs no database, other than `Dataset.from_dir`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="needs pip install fiftyone")
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "fiftyone", "--format", "fiftyone", "--boxes", "proposals")
    found = {}
    with importers.FiftyOneImageDetectionDatasetImporter(dataset_dir=str(tmp_path / "fiftyone" / "train")) as importer:
        for path, _, label in importer:
            found[Path(path).read_bytes()] = [(each.label, each.confidence) for each in label.detections]
    for sample in stored(layout):
        for frame, jpeg in zip(sample.record.frames, sample.jpegs, strict=True):
            assert found[jpeg] == [("object", score) for score in frame.proposals.scores]


def test_proposals_have_no_identities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    words = ["export-data", layout.root, "--output", str(tmp_path / "out"), "--boxes", "proposals", "--format"]
    assert main([*words, "mot"]) == 2
    assert "have no identities" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*words, "coco", "--min-score", "0.6"]) == 0
    rows = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())["annotations"]
    scores = [score for sample in stored(layout) for frame in sample.record.frames for score in frame.proposals.scores]
    assert [row["score"] for row in rows] == [score for score in scores if score >= 0.6]


def test_rows_of_a_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    with_sidecar(layout)
    write(layout, tmp_path / "coco", "--format", "coco", "--boxes", "boxes")
    assert "1 samples that are quarantined in the sidecar" in capsys.readouterr().err
    found = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert len(found["images"]) == 13 and found["annotations"][0]["bbox"] == [1, 2, 9, 18]
    words = ["export-data", layout.root, "--output", str(tmp_path / "x"), "--format", "coco", "--boxes", "bxes"]
    assert main(words) == 2
    assert "there are boxes" in capsys.readouterr().err


def test_a_folder_is_of_one_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    words = ["export-data", layout.root, "--output", str(tmp_path / "out"), "--format"]
    assert main([*words, "yolo"]) == 0 and main([*words, "yolo"]) == 0
    assert main([*words, "coco"]) == 2
    assert "holds an export as yolo" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert main([*words[:3], str(tmp_path / "mine"), "--format", "coco"]) == 2
    assert "there is something in this folder" in capsys.readouterr().err
    assert main([*words[:3], str(tmp_path / "no"), "--format", "yolo", "--masks", "rle"]) == 2
    assert "has masks as polygon" in capsys.readouterr().err


def test_a_part_is_of_one_data_set_and_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, output = make_dataset(str(tmp_path / "one")), another(tmp_path / "two"), tmp_path / "out"
    write(one, output, "--format", "coco")
    before = files(output)
    words = ["export-data", one.root, "--output", str(output), "--format", "coco"]
    for options, told in (
        ([two.root], f"the data set {one.root}, now {two.root}"),
        (["--max-samples", "2"], "--max-samples not given, now 2"),
        (["--min-score", "0.5"], "--min-score 0.0, now 0.5"),
        (["--boxes", "proposals", "--masks", "none"], "--boxes objects, now proposals; --masks rle, now none"),
    ):
        given = [*words[:1], *options, *words[2:]] if options == [two.root] else [*words, *options]
        assert main(given) == 2
        told = f"--output {output}: its part train was written with {told}: give --part another name, or another"
        assert told in capsys.readouterr().err
        assert files(output) == before
    # Notes of older versions say less, and what they do not say is not held against anybody.
    note = output / "export-train.json"
    old = {name: value for name, value in json.loads(note.read_text()).items() if "_s" not in name}
    note.write_text(json.dumps({name: value for name, value in old.items() if name != "checksum"}))
    assert main([*words, "--max-samples", "2"]) == 0
    assert main([*words[:1], two.root, *words[2:], "--part", "val"]) == 0


def test_a_part_grows_with_its_data_set(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    write(layout, tmp_path / "yolo", "--format", "yolo", "--max-samples", "100")
    before = files(tmp_path / "yolo" / "images")
    write(layout, tmp_path / "yolo", "--format", "yolo", "--max-samples", "100")
    rows, shards = write_samples(layout, 2, [(make_item("images", "late"), make_media(77), 77)])
    write_receipt(layout, 2, rows, shards, "f" * 16)
    write(layout, tmp_path / "yolo", "--format", "yolo", "--max-samples", "100")
    assert len(files(tmp_path / "yolo" / "images").items() - before.items()) == 1


def test_what_wrote_nothing_leaves_its_part_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, layout, output = another(tmp_path / "pictures"), make_dataset(str(tmp_path / "set")), tmp_path / "mot"
    assert main(["export-data", pictures.root, "--output", str(output), "--format", "mot"]) == 2
    assert "nothing to write: 3 pictures" in capsys.readouterr().err and not output.exists()
    write(layout, output, "--format", "mot")
    note = (output / "export-train.json").read_bytes()
    assert main(["export-data", pictures.root, "--output", str(output), "--format", "mot", "--part", "val"]) == 2
    assert [path.name for path in output.glob("*.json")] == ["export-train.json"]
    assert (output / "export-train.json").read_bytes() == note


def test_a_class_has_one_number_in_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trackmill.pipeline.datasets.formats.boxes import Boxes

    layout = make_dataset(str(tmp_path / "set"))
    kept = Boxes._kept
    names = ["cat", "dog"]

    def labelled(self: Boxes, frame: Any) -> Any:
        frame.labels = names[: len(frame.labels)]
        return kept(self, frame)

    monkeypatch.setattr(Boxes, "_kept", labelled)
    write(layout, tmp_path / "yolo", "--format", "yolo")
    names = ["dog", "eel"]
    write(layout, tmp_path / "yolo", "--format", "yolo", "--part", "val")
    assert (tmp_path / "yolo" / "data.yaml").read_text().endswith('  0: "cat"\n  1: "dog"\n  2: "eel"\n')
    key = sorted(samples(layout.root))[0]
    rows = (tmp_path / "yolo" / "labels" / "val" / f"{key}.txt").read_text().splitlines()
    assert [row[0] for row in rows] == ["1", "2"]


def test_to_another_store(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "set"))
    assert main(["export-data", layout.root, "--output", "memory://exported", "--format", "coco"]) == 0
    from trackmill.pipeline.storage.list_files import list_files

    assert len(list_files("memory://exported/train")) == 14


def test_polygons_have_no_holes_and_keep_every_piece() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = True
    mask[10:15, 10:15] = False
    mask[30:33, 40:55] = True
    crop = crop_mask(mask)
    assert crop is not None
    found = polygons(crop)
    assert len(found) == 2
    np.testing.assert_allclose([found[0].min(0), found[0].max(0)], [[5, 5], [25, 25]], atol=0.51)
    np.testing.assert_allclose([found[1].min(0), found[1].max(0)], [[40, 30], [55, 33]], atol=0.51)
    dot = crop_mask(np.eye(3, dtype=bool)[:, :1] > 0)
    assert dot is not None and len(polygons(dot)) == 1
