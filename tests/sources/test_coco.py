"""COCO's files: which pictures they mean, what is an object, and everything that such a file can have wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make_media import coco_document, make_coco, make_jpeg
from tests.shared_data import DATA, needs_data
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import coco_annotations as annotations_module
from trackmill.pipeline.sources import json_walk, open_source, settings_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.check import check_media
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.sources.coco_annotations import coco_annotations
from trackmill.pipeline.sources.json_walk import walk_json
from trackmill.pipeline.sources.picture_names import PictureNames
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import mask_area, mask_box
from trackmill.schemas.media import Media, WorkItem

SETTINGS = ReadSettings()


def read(item: WorkItem, settings: ReadSettings = SETTINGS) -> Media:
    media = open_source(item.source, settings).read(item)
    check_media(item.source, media)
    return media


def outcome(item: WorkItem) -> str:
    try:
        media = read(item)
    except BadItem as error:
        return str(error)
    found = media.frames[0].annotations
    return f"{item.source}: " + ("nothing is known" if found is None else f"{len(found.ids)} objects")


def outcomes(*inputs: Path, source: str = "auto", **config: Any) -> dict[str, str]:
    own = settings_class(source).model_validate(config)
    items, _ = claim_files(list_inputs(list(map(str, inputs))), source, SETTINGS, own)
    return {Path(item.source_id).name: outcome(item) for item in items}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = folder / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_objects_masks_and_crowds(tmp_path):
    make_coco(tmp_path, 3)
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert not unclaimed and {item.source for item in items} == {"coco"} and len(items) == 3
    media = read(items[1])
    assert media.kind == "image" and media.annotated and not media.amodal and media.license == "Attribution License"
    found = media.frames[0].annotations
    assert found.ids == [2003, 2002, 2001, 2000], "in the order of the file"
    assert found.boxes[:3].tolist() == [[30.5, 10.25, 38.5, 19.25], [4, 0, 7, 48], [4, 4, 20, 20]]
    assert found.ignore.tolist() == [[40, 0, 60, 20]]
    none, runs, polygon, packed = found.masks
    assert none is None and mask_box(runs) == (4, 0, 7, 48) and mask_area(runs) == 3 * 48
    assert mask_box(polygon) == (4, 4, 20, 20) and mask_area(polygon) == 256
    assert mask_box(packed) == tuple(map(int, found.boxes[3].tolist()))


def test_chosen_classes_and_pictures_without_any(tmp_path):
    make_coco(tmp_path, 2)
    rewrite(tmp_path, lambda d: [each.update(category_id=2) for each in d["annotations"] if each["image_id"] == 100])
    both = outcomes(tmp_path, classes="person, bicycle")
    assert list(both.values()) == ["coco: 4 objects"] * 2
    assert list(outcomes(tmp_path, classes="person").values()) == ["coco: 0 objects", "coco: 2 objects"]
    assert list(outcomes(tmp_path, classes="person", empty=False).values()) == ["coco: 2 objects"]
    with pytest.raises(InputError, match="no category is called 'persn'; did you mean 'person'"):
        outcomes(tmp_path, classes="persn")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("{:012d}.jpg", "val2017"),
        ("val2017/{:012d}.jpg", "val2017"),
        ("./val2017/{:012d}.jpg", "images/val2017"),
        ("val2017\\{:012d}.JPG", "val2017"),
        ("/data/of/somebody/{:012d}.jpg", "elsewhere"),  # found by the last part
    ],
)
def test_pictures_are_found_by_their_names(tmp_path, name, folder):
    make_coco(tmp_path, 2)
    document = coco_document(2, 48, 64, name)
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "val2017").rename(tmp_path / folder)
    assert list(outcomes(tmp_path).values()) == ["coco: 4 objects"] * 2


def test_what_an_export_says_of_itself_is_no_annotation(tmp_path):
    make_coco(tmp_path, 2)
    note = {"format": "coco", "data": "s3://bucket/mined", "trackmill": "1.0", "complete": True}
    (tmp_path / "export-train.json").write_text(json.dumps(note))
    items, _, _ = claim_all([str(tmp_path)], "coco", SETTINGS)
    assert [outcome(item) for item in items] == ["coco: 4 objects"] * 2
    (tmp_path / "export-val.json").write_text("{}")  # of somebody else
    items, _, _ = claim_all([str(tmp_path)], "coco", SETTINGS)
    assert len(items) == 3 and any("export-val.json" in item.uri for item in items)
    (tmp_path / "export-val.json").unlink()
    (tmp_path / "export-val.json").symlink_to(tmp_path / "nowhere")  # cannot be read: an item with its reason
    items, _, _ = claim_all([str(tmp_path)], "coco", SETTINGS)
    assert [outcome(item) for item in items if "export-val" not in item.uri] == ["coco: 4 objects"] * 2


def test_the_nearest_of_several_pictures_of_one_name_is_meant():
    names = PictureNames(["/d/train2017/1.jpg", "/d/val2017/1.jpg", "/d/b/1.jpg", "/d/b/c/1.jpg", "/d/1.txt"])
    assert names.find("1.jpg", "/d/annotations/instances_train2017.json") == ["/d/train2017/1.jpg"]
    assert names.find("1.jpg", "/d/b/labels.json") == ["/d/b/1.jpg", "/d/b/c/1.jpg"]
    assert names.find("c/1.jpg", "/d/labels.json") == ["/d/b/c/1.jpg"]
    assert names.find("e/1.jpg", "/d/labels.json") == [] and names.find("2.jpg", "/d/labels.json") == []
    assert names.find("..", "/d/labels.json") == names.find("", "/d/labels.json") == []


def test_several_files_each_with_its_pictures(tmp_path):
    make_coco(tmp_path / "one", 2)
    make_coco(tmp_path / "two", 1)
    (tmp_path / "two/annotations/instances_val2017.json").rename(tmp_path / "two/val2017/_annotations.coco.json")
    (tmp_path / "two/annotations/captions_val2017.json").write_text(
        json.dumps({"images": [], "annotations": [{"image_id": 100, "id": 1, "caption": "a street"}]})
    )
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert [outcome(item) for item in items] == ["coco: 4 objects"] * 3
    assert list(map(basename, unclaimed)) == ["captions_val2017.json"]


def test_two_files_about_the_same_pictures(tmp_path, caplog):
    make_coco(tmp_path, 2)
    notes = tmp_path / "annotations"
    points = notes / "person_keypoints_val2017.json"
    points.write_bytes((notes / "instances_val2017.json").read_bytes())
    assert list(outcomes(tmp_path).values()) == ["coco: 4 objects"] * 2
    assert f"{points}: left out, since" in caplog.text
    points.rename(notes / "instances_half.json")
    with pytest.raises(InputError, match=r"2 of its pictures are those of .*, too, and it cannot be told"):
        outcomes(tmp_path)
    assert len(outcomes(notes / "instances_half.json", tmp_path / "val2017")) == 2


def test_what_is_missing_doubled_or_more_is_said(tmp_path, caplog):
    pictures = make_coco(tmp_path, 4)
    pictures[0].unlink()
    make_jpeg(tmp_path / "val2017" / "stranger.jpg")

    def change(document: dict[str, Any]) -> None:
        document["images"][3]["file_name"] = document["images"][2]["file_name"]
        document["annotations"].append({"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "id": 1})
        document["videos"] = [{"id": 1}]

    rewrite(tmp_path, change)
    found = outcomes(tmp_path)
    assert sorted(found) == ["000000000000.jpg#100", "000000000001.jpg", "000000000002.jpg", "000000000002.jpg#103"]
    assert "lists this picture ('000000000000.jpg'), but it is missing" in found["000000000000.jpg#100"]
    assert "lists this picture twice" in found["000000000002.jpg#103"]
    for said in (
        "1 of its 4 pictures are missing",
        "1 annotations are of pictures that it does not list",
        "lists videos; their frames are read as single pictures, without tracks",
        "such as",
        "000000000003.jpg, lie among annotated ones and are left out",
    ):
        assert said in caplog.text


def test_boxes_that_leave_the_picture(tmp_path):
    make_coco(tmp_path, 1)
    rewrite(
        tmp_path,
        lambda d: d["annotations"].append({"id": 9, "image_id": 100, "category_id": 1, "bbox": [-5, 8, 20, 90]}),
    )
    (item,), _, _ = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert read(item).frames[0].annotations.boxes[-1].tolist() == [0, 8, 15, 48]
    assert read(item, ReadSettings(amodal=True)).frames[0].annotations.boxes[-1].tolist() == [-5, 8, 15, 98]


RECORD: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bbox": [1, 2, -3, 4]}, "'bbox' should be [x, y, width, height], found [1, 2, -3, 4]"),
        ({"bbox": [1, 2, 3, None]}, "'bbox' should be"),
        ({"bbox": [1, 2, 3, 10**400]}, "'bbox' should be"),
        ({"bbox": "1 2 3 4"}, "'bbox' should be"),
        ({"bbox": None}, "has neither 'bbox' nor 'segmentation'"),
        ({"id": "seven"}, "'id': expected a whole number"),
        ({"id": 2**64}, "stored in 64 bits"),
        ({"iscrowd": 2}, "'iscrowd' should be 0 or 1, found 2"),
        ({"iscrowd": [1]}, "'iscrowd' should be 0 or 1"),
        ({"score": "high"}, "'score': expected a score"),
        ({"segmentation": [[0, 0, 9, 9, 9, "x"]]}, "'segmentation'[0]: a polygon's corners should be finite numbers"),
        ({"segmentation": [[0, 0, 9, 9, 9, 1e12]]}, "lies far outside"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "the mask was made for 9 x 9"),
        ({"segmentation": {"size": [48, 64], "counts": "~~~"}}, "COCO's alphabet"),
        ({"segmentation": {"size": [48, 64], "counts": [10**12]}}, "negative or longer"),
    ],
)
def test_a_wrong_annotation_is_named(change, said):
    with pytest.raises(BadItem) as caught:
        coco_annotations([(17, RECORD | change)], 48, 64, "x.json", amodal=False)
    assert str(caught.value).startswith("x.json: annotations[17]: ") and said in str(caught.value)


def test_what_is_odd_but_means_something():
    odd = [
        {"bbox": None, "segmentation": [[4, 4, 20, 4, 20, 20, 4, 20]]},  # the box of the mask
        {"segmentation": [[1, 1, 2, 2]], "id": 2},  # a line is no mask
        {"id": 3.0, "iscrowd": None, "score": 0.25},
        {"id": None, "bbox": [0, 0, 1e9, 1e9]},
        {"bbox": None, "segmentation": {"size": [48, 64], "counts": [0, 48 * 64]}, "id": 5},  # all of it
        {"bbox": None, "segmentation": {"size": [48, 64], "counts": [48 * 64]}},  # nothing
    ]
    found = coco_annotations([(place, RECORD | each) for place, each in enumerate(odd)], 48, 64, "x", amodal=False)
    assert found.ids == [0, 1, 2, 3, 4] and found.scores == [1, 1, 0.25, 1, 1]
    assert found.boxes[0].tolist() == [4, 4, 20, 20] and found.boxes[3].tolist() == [0, 0, 64, 48]
    assert [mask is None for mask in found.masks] == [False, True, True, True, False]


def test_two_annotations_of_one_id():
    with pytest.raises(BadItem, match="two annotations of this picture have the id 1"):
        coco_annotations([(0, RECORD), (1, RECORD)], 48, 64, "x", amodal=False)


def test_a_picture_of_another_size(tmp_path):
    make_coco(tmp_path, 1)
    rewrite(tmp_path, lambda d: d["images"][0].update(width=48, height=64))
    assert "says 64 x 48 (height x width), the picture has 48 x 64" in outcomes(tmp_path)["000000000000.jpg"]
    rewrite(tmp_path, lambda d: (d["images"][0].pop("width"), d["images"][0].pop("height")))
    assert outcomes(tmp_path) == {"000000000000.jpg": "coco: 4 objects"}


def written(value: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[:-400], "cut short or broken at byte"),
        (lambda whole: whole + b"{}", "there is more than one document"),
        (lambda whole: whole.replace(b'"images": [', b'"images": ["x", '), "images[0]: should be an object, found 'x'"),
        (lambda whole: whole.replace(b'"file_name"', b'"file"', 1), "images[0]: should have an 'id' and a 'file_name'"),
        (lambda whole: whole.replace(b'"image_id": 100', b'"image_id": [1]', 1), "should have an 'image_id'"),
        (lambda whole: whole.replace(b'"images"', b'"pictures"'), "has no 'images'"),
        (lambda whole: whole.replace(b'"year": 2017', b'"year": ' + b"[" * 100_000), "nested too deeply"),
        (written(b""), "should be a JSON object"),
        (written(b"[1, 2]"), "should be a JSON object"),
        (written("{}".encode("utf-16")), "is UTF-16 or UTF-32 text; save it as UTF-8"),
        (written(b"\x1f\x8b" + bytes(99)), "is packed with gzip; unpack it"),
    ],
)
def test_a_broken_file_is_named_and_its_pictures_are_left_out(tmp_path, change, said):
    make_coco(tmp_path, 2)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_bytes(change(path.read_bytes()))
    found = outcomes(tmp_path, source="coco")
    assert any(said in text and "instances_val2017.json" in text for text in found.values())
    assert "images: nothing is known" not in outcomes(tmp_path).values() or b'"images"' not in path.read_bytes()


def test_a_broken_annotation_costs_its_picture(tmp_path):
    make_coco(tmp_path, 2)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_bytes(path.read_bytes().replace(b"[30.5, 10.25", b"[NaN, 10.25", 1))
    texts = sorted(outcomes(tmp_path).values())
    assert "not valid JSON" in texts[0] and "annotations[1]" in texts[0] and texts[1] == "coco: 4 objects"


def test_other_encodings_of_names(tmp_path):
    make_jpeg(tmp_path / "ünter.jpg")
    document = coco_document(1, 48, 64, "ünter.jpg")
    for ascii_only in (True, False):
        text = "\ufeff" + json.dumps(document, ensure_ascii=ascii_only)
        (tmp_path / "labels.json").write_text(text, encoding="utf-8")
        assert outcomes(tmp_path) == {"ünter.jpg": "coco: 4 objects"}


def test_a_file_that_was_changed_after_the_plan_is_noticed(tmp_path):
    make_coco(tmp_path, 2)
    items, _, _ = claim_all([str(tmp_path)], "auto", SETTINGS)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_bytes(path.read_bytes().replace(b"30.5", b"31.5", 1))
    assert sum("changed after the work was planned" in outcome(item) for item in items) == 1


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_a_document_is_walked_in_windows_of_any_size(monkeypatch, block):
    monkeypatch.setattr(json_walk, "_BLOCK_BYTES", block)
    document = {"a": [1, 23456, {'é\\"]': [[]]}, "x"], "b": {}, "c": [], "d": -1.5e3, "e": [[1, 2], None, True]}
    for text in (json.dumps(document), json.dumps(document, indent=3, ensure_ascii=False) + "\n "):
        data = text.encode()
        found = list(walk_json(io.BytesIO(data)))
        assert [(each.key, each.position) for each in found] == [
            ("a", 0),
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", -1),
            ("c", -1),
            ("d", -1),
            ("e", 0),
            ("e", 1),
            ("e", 2),
        ]
        for each in found:
            wanted = document[each.key][each.position] if each.position >= 0 else document[each.key]
            piece = data[each.offset : each.offset + each.length]
            assert each.data == piece and (not piece or json.loads(piece) == wanted)


def test_memory_does_not_grow_with_the_file(monkeypatch):
    monkeypatch.setattr(json_walk, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(json_walk, "MAX_VALUE_BYTES", 1000)
    text = json.dumps({"annotations": [{"n": number} for number in range(2000)]})
    assert sum(1 for _ in walk_json(io.BytesIO(text.encode()))) == 2000
    with pytest.raises(BadItem, match="an element of more than 1,000 bytes"):
        list(walk_json(io.BytesIO(json.dumps({"a": ["x" * 5000]}).encode())))


def test_annotations_that_stand_together_are_fetched_together(tmp_path, monkeypatch):
    make_coco(tmp_path, 2)
    items, _, _ = claim_all([str(tmp_path)], "auto", SETTINGS)
    asked = []
    real = annotations_module.fetch_bytes
    monkeypatch.setattr(annotations_module, "fetch_bytes", lambda *a, **k: asked.append(a) or real(*a, **k))
    assert [outcome(item) for item in items] == ["coco: 4 objects"] * 2 and len(asked) == 2
    monkeypatch.setattr(annotations_module, "_GAP_BYTES", -1)
    assert [outcome(item) for item in items] == ["coco: 4 objects"] * 2 and len(asked) == 12


@needs_data("coco_mini")
def test_real_coco():
    items, _, unclaimed = claim_all([str(DATA / "coco_mini")], "auto", SETTINGS)
    assert not unclaimed and [item.source for item in items] == ["coco"] * 2
    media = [read(item) for item in items]
    objects = [len(each.frames[0].annotations.ids) for each in media]
    document = json.loads((DATA / "coco_mini/annotations/instances_train.json").read_text())
    crowds = sum(each["iscrowd"] for each in document["annotations"])
    assert sum(objects) + crowds == 33
    for each in media:
        notes = each.frames[0].annotations
        for box, mask in zip(notes.boxes, notes.masks, strict=True):
            assert np.abs(np.array(mask_box(mask)) - box).max() < 2, "masks lie in their boxes"
