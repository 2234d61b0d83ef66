"""SA-1B: folders and tars give the same samples, and whatever is wrong with one picture is said of that picture."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.make_media import (
    add_member,
    coco_rle,
    jpeg_bytes,
    make_jpeg,
    make_sa1b_folder,
    make_sa1b_tar,
    make_scene,
    sa1b_document,
)
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem, MissingAnnotation, TruncatedMedia
from trackmill.pipeline.media.rle import crop_rle
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.schemas.masks import crop_mask, mask_runs, paste_mask

SETTINGS = ReadSettings()


def read_all(folder: Path, name: str = "sa1b"):
    items, _, _ = claim_all([str(folder)], name, SETTINGS)
    source = open_source("sa1b", SETTINGS)
    return [source.read(item) for item in items]


def read_error(folder: Path, name: str = "sa1b") -> dict[str, BadItem]:
    """What reading each item raises, by the end of its source_id; items that can be read are left out."""
    items, _, _ = claim_all([str(folder)], name, SETTINGS)
    source = open_source("sa1b", SETTINGS)
    errors = {}
    for item in items:
        try:
            source.read(item)
        except BadItem as error:
            assert item.source_id in str(error)
            errors[item.source_id.rsplit("/", 1)[-1].rsplit("#", 1)[-1]] = error
    return errors


def change(folder: Path, edit) -> None:
    """Rewrite the JSON of picture 1."""
    path = folder / "sa_1.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_annotations_are_those_of_the_file(tmp_path):
    make_sa1b_folder(tmp_path, 1)
    (media,) = read_all(tmp_path)
    _, masks = make_scene(48, 64, seed=1)
    annotations = media.frames[0].annotations
    assert annotations.ids == [1000, 1001, 1002]
    assert annotations.scores == pytest.approx([0.9, 0.91, 0.92])
    for box, crop, mask in zip(annotations.boxes, annotations.masks, masks, strict=True):
        assert np.array_equal(paste_mask(crop, 48, 64), mask)
        assert box.tolist() == [crop.x, crop.y, crop.x + crop.width, crop.y + crop.height]
    assert media.license == "SA-1B research licence" and media.annotated
    assert media.frames[0].encoded == (tmp_path / "sa_1.jpg").read_bytes()


def test_tar_gives_what_the_folder_gives(tmp_path):
    make_sa1b_folder(tmp_path / "folder", 3)
    make_sa1b_tar(tmp_path / "tars" / "sa_000000.tar", 3)
    for loose, packed in zip(read_all(tmp_path / "folder"), read_all(tmp_path / "tars", "auto"), strict=True):
        assert loose.sha256 == packed.sha256 and loose.num_bytes == packed.num_bytes
        assert np.array_equal(loose.frames[0].image, packed.frames[0].image)
        assert loose.frames[0].annotations.masks == packed.frames[0].annotations.masks


def test_items_of_a_tar_are_byte_ranges(tmp_path):
    path = make_sa1b_tar(tmp_path / "sa_000000.tar", 2)
    items, _, _ = claim_all([str(path)], "auto", SETTINGS)
    assert [item.source_id for item in items] == [f"{path}#./sa_1.jpg", f"{path}#./sa_2.jpg"]
    for item, number in zip(items, (1, 2), strict=True):
        stored = path.read_bytes()[item.offset : item.offset + item.length]
        assert stored == jpeg_bytes(make_scene(48, 64, seed=number)[0])


def test_uncompressed_counts_and_missing_scores_are_accepted(tmp_path):
    make_sa1b_folder(tmp_path, 1)
    mask = make_scene(48, 64, seed=1)[1][0]

    def edit(document):
        document["annotations"][0]["segmentation"]["counts"] = mask_runs(mask).tolist()
        del document["annotations"][0]["predicted_iou"]
        document["annotations"][1]["predicted_iou"] = 1.03

    change(tmp_path, edit)
    annotations = read_all(tmp_path)[0].frames[0].annotations
    assert np.array_equal(paste_mask(annotations.masks[0], 48, 64), mask)
    assert annotations.scores[:2] == [1.0, 1.0]


def first(key: str, value: object):
    return lambda document: document["annotations"][0].update({key: value})


def rle(**changes: object):
    return lambda document: document["annotations"][0]["segmentation"].update(changes)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda document: document.pop("annotations"), "'annotations' is missing"),
        (lambda document: document.update(annotations={}), "'annotations' should be list"),
        (lambda document: document["annotations"].append(7), "annotation 3: expected a JSON object"),
        (lambda document: document["annotations"][0].pop("bbox"), r"id 1000\): 'bbox' is missing"),
        (lambda document: document["annotations"][0].pop("id"), "annotation 0: 'id' is missing"),
        (first("id", "x"), "annotation 0: 'id' should be int"),
        (first("id", 1001), "same id"),
        (first("bbox", [1, 2, 3]), "'bbox' should be"),
        (first("bbox", [1, 2, -3, 4]), "'bbox' should be"),
        (first("bbox", [1, 2, None, 4]), "'bbox' should be"),
        (first("predicted_iou", "high"), "expected a score"),
        (first("segmentation", [[1, 2, 3, 4, 5, 6]]), "polygon"),
        (first("segmentation", "?"), "'size' and 'counts'"),
        (rle(size=[64, 48]), r"id 1000\): the mask was made for 64 x 48"),
        (rle(size=[48]), "'size' should be"),
        (rle(counts="0"), r"id 1000\): mask has 0 pixels"),
        (rle(counts="\u00ff\u20ac"), "id 1000"),
        (rle(counts=[1, 2, 3]), "mask has 6 pixels"),
        (rle(counts=[10**30]), "id 1000"),
        (rle(counts=[48 * 64 + 5, -5]), "negative"),
        (rle(counts=[1.5]), "'counts' should be"),
        (rle(counts=None), "'counts' should be"),
    ],
)
def test_broken_annotation_is_named(tmp_path, edit, text):
    make_sa1b_folder(tmp_path, 2)
    change(tmp_path, edit)
    errors = read_error(tmp_path)
    assert list(errors) == ["sa_1.jpg"]
    with pytest.raises(BadItem, match=text):
        raise errors["sa_1.jpg"]


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "not valid JSON"), (b"[1]", "JSON object"), (b'{"a": NaN}', "JSON")]
)
def test_json_that_is_none(tmp_path, content, text):
    make_sa1b_folder(tmp_path, 1)
    (tmp_path / "sa_1.json").write_bytes(content)
    items, _, _ = claim_all([str(tmp_path)], "sa1b", SETTINGS)
    with pytest.raises(BadItem, match=rf"sa_1\.json.*{text}"):
        open_source("sa1b", SETTINGS).read(items[0])


def test_half_of_a_pair(tmp_path):
    make_sa1b_folder(tmp_path, 3)
    (tmp_path / "sa_1.json").unlink()
    (tmp_path / "sa_2.jpg").unlink()
    errors = read_error(tmp_path, "auto")
    assert isinstance(errors["sa_1.jpg"], MissingAnnotation) and "--source images" in str(errors["sa_1.jpg"])
    assert "picture is missing" in str(errors["sa_2.jpg"])
    assert len(errors) == 2


def test_pictures_called_like_sa1b_are_pictures_without_any_json(tmp_path):
    make_jpeg(tmp_path / "sa_1.jpg")
    assert [item.source for item in claim_all([str(tmp_path)], "auto", SETTINGS)[0]] == ["images"]
    assert isinstance(read_error(tmp_path, "sa1b")["sa_1.jpg"], MissingAnnotation)


def test_tars_of_other_names_are_read_when_asked_for(tmp_path):
    make_sa1b_tar(tmp_path / "copy.tar", 1)
    make_jpeg(tmp_path / "x.jpg")
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert [item.source for item in items] == ["images"] and unclaimed == [str(tmp_path / "copy.tar")]
    assert len(claim_all([str(tmp_path / "copy.tar")], "sa1b", SETTINGS)[0]) == 1


def test_unsafe_members_are_refused_and_named(tmp_path):
    path = make_sa1b_tar(tmp_path / "sa_000000.tar", 1)
    with tarfile.open(path, "a") as tar:
        add_member(tar, "../sa_2.jpg", jpeg_bytes(make_scene(48, 64)[0]))
        add_member(tar, "/etc/sa_3.jpg", jpeg_bytes(make_scene(48, 64)[0]))
        for name, kind in (("sa_4.jpg", tarfile.SYMTYPE), ("sa_5.jpg", tarfile.LNKTYPE), ("sa_6.jpg", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    errors = read_error(tmp_path, "auto")
    assert sorted(errors) == ["sa_2.jpg", "sa_3.jpg", "sa_4.jpg", "sa_5.jpg", "sa_6.jpg"]
    assert "sa_000000.tar#../sa_2.jpg" in str(errors["sa_2.jpg"]) and "absolute" in str(errors["sa_3.jpg"])
    assert all("link" in str(errors[f"sa_{number}.jpg"]) for number in (4, 5, 6))


def test_cut_tar_keeps_what_lies_before_the_cut(tmp_path):
    whole = make_sa1b_tar(tmp_path / "whole.tar", 4)
    with tarfile.open(whole) as tar:
        cut = tar.getmember("./sa_3.jpg").offset_data + 100
    (tmp_path / "sa_000000.tar").write_bytes(whole.read_bytes()[:cut])
    items, _, _ = claim_all([str(tmp_path / "sa_000000.tar")], "auto", SETTINGS)
    assert len(items) == 3
    errors = read_error(tmp_path / "sa_000000.tar", "auto")
    assert list(errors) == ["sa_3.jpg"] and isinstance(errors["sa_3.jpg"], TruncatedMedia)
    assert "after 100 of its" in str(errors["sa_3.jpg"])


@pytest.mark.parametrize("member", ["./sa_3.jpg", "./sa_3.json"])
def test_tar_cut_between_members_is_noticed(tmp_path, member):
    whole = make_sa1b_tar(tmp_path / "whole.tar", 4)
    with tarfile.open(whole) as tar:
        cut = tar.getmember(member).offset
    (tmp_path / "sa_000000.tar").write_bytes(whole.read_bytes()[:cut])
    errors = read_error(tmp_path / "sa_000000.tar", "auto")
    assert any(isinstance(error, TruncatedMedia) and "end mark" in str(error) for error in errors.values())
    assert len(errors) == (1 if member.endswith("jpg") else 2)


def test_damaged_header_is_noticed(tmp_path):
    path = make_sa1b_tar(tmp_path / "sa_000000.tar", 3)
    with tarfile.open(path) as tar:
        damaged = tar.getmember("./sa_2.jpg").offset
    data = bytearray(path.read_bytes())
    data[damaged : damaged + 512] = b"\xaa" * 512
    path.write_bytes(bytes(data))
    errors = read_error(tmp_path, "auto")
    assert len(errors) == 1 and str(damaged) in str(*errors.values())


@pytest.mark.parametrize("content", [b"", b"no tar " * 200])
def test_what_is_no_tar_is_one_bad_item(tmp_path, content):
    (tmp_path / "sa_000000.tar").write_bytes(content)
    assert len(read_error(tmp_path, "auto")) == 1


def test_boxes_are_cut_at_the_border(tmp_path):
    make_sa1b_folder(tmp_path, 1)
    change(tmp_path, first("bbox", [-5.5, 40, 20, 100]))
    assert read_all(tmp_path)[0].frames[0].annotations.boxes[0].tolist() == [0, 40, 14.5, 48]


def test_license_can_be_set(tmp_path):
    make_sa1b_folder(tmp_path, 1)
    items, _, _ = claim_all([str(tmp_path)], "sa1b", SETTINGS)
    assert open_source("sa1b", ReadSettings(license="mine")).read(items[0]).license == "mine"


def test_cropping_run_lengths_equals_decoding_everything():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 20, 2).tolist()
        mask = rng.random((height, width)) < rng.choice([0.0, 0.05, 0.5, 1.0])
        assert crop_rle(coco_rle(mask), height, width, "x") == crop_mask(mask)


def test_long_member_names(tmp_path):
    path = tmp_path / "sa_000001.tar"
    name = "a" * 120 + "/sa_7.jpg"
    image, masks = make_scene(48, 64)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add_member(tar, name, jpeg_bytes(image))
        add_member(tar, name.replace("jpg", "json"), json.dumps(sa1b_document(7, masks)).encode())
    items, _, _ = claim_all([str(path)], "auto", SETTINGS)
    assert [item.source_id for item in items] == [f"{path}#{name}"]
    assert len(open_source("sa1b", SETTINGS).read(items[0]).frames[0].annotations.ids) == 3
    assert io.BytesIO(path.read_bytes()).getbuffer()[items[0].offset : items[0].offset + 2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ({"file_name": "sa_2.jpg"}, r"belongs to another picture: image.file_name is 'sa_2\.jpg'"),
        ({"image_id": 2}, r"belongs to another picture: image.image_id is 2"),
        ({"image_id": "2"}, r"belongs to another picture: image.image_id is 2"),
        ({"width": 640}, "says width 640, the picture has 64"),
    ],
)
def test_json_of_another_picture_is_refused(tmp_path, image, text):
    make_sa1b_folder(tmp_path, 2)
    change(tmp_path, lambda document: document["image"].update(image))
    errors = read_error(tmp_path)
    assert list(errors) == ["sa_1.jpg"]
    with pytest.raises(BadItem, match=text):
        raise errors["sa_1.jpg"]


def test_json_of_another_picture_in_a_tar_is_refused(tmp_path):
    image, masks = make_scene(48, 64, seed=1)
    with tarfile.open(tmp_path / "sa_000000.tar", "w") as tar:
        add_member(tar, "sa_1.jpg", jpeg_bytes(image))
        add_member(tar, "sa_1.json", json.dumps(sa1b_document(2, masks)).encode())
    assert "image.file_name is 'sa_2.jpg'" in str(read_error(tmp_path, "auto")["sa_1.jpg"])


@pytest.mark.parametrize("image", [None, {}, {"file_name": "images/SA_1.JPEG", "image_id": 1.0}])
def test_json_that_does_not_state_another_picture_is_fine(tmp_path, image):
    make_sa1b_folder(tmp_path, 1)
    change(tmp_path, lambda document: document.update(image=image))
    assert len(read_all(tmp_path)[0].frames[0].annotations.ids) == 3
