"""CrowdHuman: lines and their pictures, people and what is ignored, and everything that a line can have wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.make_media import crowdhuman_line, make_crowdhuman, make_jpeg
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import odgt_lines as lines_module
from trackmill.pipeline.sources import open_source, settings_class
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.check import check_media
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.sources.crowdhuman_boxes import crowdhuman_annotations
from trackmill.pipeline.sources.odgt_lines import index_odgt
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import Media, WorkItem

SETTINGS = ReadSettings()


def read(item: WorkItem, settings: ReadSettings = SETTINGS) -> Media:
    media = open_source(item.source, settings).read(item)
    check_media(item.source, media)
    return media


def outcome(item: WorkItem) -> str:
    try:
        return f"{len(read(item).frames[0].annotations.ids)} people"
    except BadItem as error:
        return str(error)


def outcomes(folder: Path, source: str = "auto") -> dict[str, str]:
    items, _, _ = claim_all([str(folder)], source, SETTINGS)
    return {Path(item.uri).name: outcome(item) for item in items}


def one_line(folder: Path, line: str | bytes, name: str = "a") -> dict[str, str]:
    """What becomes of one picture and one line."""
    make_jpeg(folder / "Images" / f"{name}.jpg")
    data = line.encode() if isinstance(line, str) else line
    (folder / "annotation_val.odgt").write_bytes(data)
    return outcomes(folder)


def test_people_and_ignored_regions(tmp_path):
    make_crowdhuman(tmp_path)
    items, _, unclaimed = claim_all([str(tmp_path)], "auto", SETTINGS)
    assert not unclaimed and {item.source for item in items} == {"crowdhuman"} and len(items) == 3
    for item in items:
        media = read(item)
        found = media.frames[0].annotations
        assert media.kind == "image" and media.annotated and not media.amodal
        assert found.ids == [0, 1] and found.boxes.tolist() == [[5, 6, 25, 36], [0, 10, 20, 48]]
        assert found.ignore.tolist() == [[40, 0, 60, 20], [50, 30, 60, 40]]
        kept = read(item, ReadSettings(amodal=True))
        assert kept.amodal and kept.frames[0].annotations.boxes.tolist() == [[5, 6, 25, 36], [-10, 10, 20, 70]]


def test_visible_boxes(tmp_path):
    make_crowdhuman(tmp_path, 1)
    config = settings_class("auto").model_validate({"box": "visible"})
    items, _ = claim_files(list_inputs([str(tmp_path)]), "auto", SETTINGS, config)
    media = read(items[0], ReadSettings(amodal=True))
    assert not media.amodal, "what is visible lies in the picture"
    assert media.frames[0].annotations.boxes.tolist() == [[10, 13.5, 20, 28.5], [0, 25, 12.5, 48]]


@pytest.mark.parametrize("folder", ["Images", "CrowdHuman_train01/Images", "train/CrowdHuman_train/Images", "."])
def test_pictures_are_found_where_people_put_them(tmp_path, folder):
    pictures = make_crowdhuman(tmp_path, 2, "train")
    make_crowdhuman(tmp_path / "other", 1, "val")
    for picture in pictures:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        picture.rename(tmp_path / folder / picture.name)
    assert sorted(outcomes(tmp_path).values()) == ["2 people"] * 3


def test_lines_without_a_picture_and_pictures_without_a_line(tmp_path, caplog):
    pictures = make_crowdhuman(tmp_path, 3)
    pictures[1].rename(tmp_path / "Images" / "stranger.jpg")
    found = outcomes(tmp_path)
    said = f"line 2 of {tmp_path / 'annotation_val.odgt'} is about this picture, but it is missing"
    assert found.pop(pictures[1].name).endswith(said)
    assert list(found.values()) == ["2 people"] * 2 and "1 of its 3 pictures are missing" in caplog.text
    assert "stranger.jpg, lie among annotated ones and are left out" in caplog.text


def test_a_file_of_which_no_picture_is_there_is_left_out(tmp_path, caplog):
    make_crowdhuman(tmp_path, 2, "val")
    (tmp_path / "annotation_train.odgt").write_text(crowdhuman_line("x", [[0, 0, 5, 5]]))
    assert list(outcomes(tmp_path).values()) == ["2 people"] * 2
    assert "annotation_train.odgt: none of its 1 pictures is in the input" in caplog.text


def test_two_files_about_the_same_pictures(tmp_path, caplog):
    make_crowdhuman(tmp_path, 2)
    copy = tmp_path / "annotation_val_copy.odgt"
    copy.write_bytes((tmp_path / "annotation_val.odgt").read_bytes())
    assert list(outcomes(tmp_path).values()) == ["2 people"] * 2
    assert f"{copy}: 2 of its pictures are those of" in caplog.text


ROW: dict[str, Any] = {"tag": "person", "fbox": [1, 2, 30, 40], "vbox": [1, 2, 3, 4], "extra": {"ignore": 0}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fbox": [1, 2, -3, 4]}, r"gtboxes[0]: 'fbox' should be [x, y, width, height], found [1, 2, -3, 4]"),
        ({"fbox": [1, 2, 3]}, "'fbox' should be"),
        ({"fbox": [1, 2, 3, "4"]}, "'fbox' should be"),
        ({"fbox": [1, 2, 3, True]}, "'fbox' should be"),
        ({"fbox": [1, 2, 3, 10**400]}, "'fbox' should be"),
        ({"fbox": None}, "'fbox' should be list, found NoneType"),
        ({"tag": "crowd"}, "'tag' should be person or mask, found 'crowd'"),
        ({"tag": None}, "'tag' should be str"),
        ({"extra": []}, "'extra' should be an object"),
        ({"extra": {"ignore": "yes"}}, "'extra.ignore' should be 0 or 1, found 'yes'"),
        ({"extra": {"ignore": [1]}}, "'extra.ignore' should be 0 or 1"),
    ],
)
def test_a_wrong_box_is_named(change, said):
    with pytest.raises(BadItem) as caught:
        crowdhuman_annotations({"gtboxes": [ROW | change]}, 48, 64, "full", "x.odgt: line 3", amodal=False)
    assert str(caught.value).startswith("x.odgt: line 3") and said in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "people"),
    [
        ([ROW | {"fbox": [0, 0, 0, 9]}], 0),  # no area
        ([ROW | {"fbox": [100, 100, 9, 9]}], 0),  # outside
        ([ROW | {"fbox": [-1e9, 0, 2e9, 9]}], 1),
        ([{key: ROW[key] for key in ("tag", "fbox")}], 1),  # without what is not needed
        ([], 0),
    ],
)
def test_boxes_at_the_limits(tmp_path, rows, people):
    assert one_line(tmp_path, json.dumps({"ID": "a", "gtboxes": rows})) == {"a.jpg": f"{people} people"}


def test_too_many_boxes():
    with pytest.raises(BadItem, match="10001 boxes, more than the 10000"):
        crowdhuman_annotations({"gtboxes": [ROW] * 10_001}, 48, 64, "full", "x", amodal=False)


GOOD = json.dumps({"ID": "a", "gtboxes": [ROW]})


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (GOOD[:-10], "a.jpg", "annotation_val.odgt: line 1: not valid JSON"),  # cut short
        (GOOD.replace("30", "NaN"), "a.jpg", "line 1: not valid JSON"),
        (GOOD.replace("30", "1e999"), "a.jpg", "line 1"),
        (GOOD.replace('"gtboxes"', '"boxes"'), "a.jpg", "line 1 ('a'): 'gtboxes' is missing"),
        (f"{GOOD}\n{GOOD}", "a.jpg", "ID 'a' stands in line 1 and in line 2"),
        ("\n\n" + GOOD.replace('"a"', "7"), "annotation_val.odgt", "line 3: 'ID' should be the name of its picture"),
        ("[1, 2]\n{", "annotation_val.odgt", "line 1: should be a JSON object, found [1, 2]; it is not known of which"),
        ("[" * 100_000, "annotation_val.odgt", "line 1: not valid JSON"),
        ("", "annotation_val.odgt", "holds no line"),
        (GOOD.encode("utf-16"), "annotation_val.odgt", "is UTF-16 text; save it as UTF-8"),
        (GOOD.encode().replace(b'"gtboxes"', b'"\xff": 1, "gtboxes"'), "a.jpg", "line 1: not valid JSON"),
        (b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n", "a.jpg", "1 people"),
    ],
)
def test_a_broken_line_costs_its_picture(tmp_path, text, name, said):
    assert said in one_line(tmp_path, text)[name]


def test_lines_of_any_length_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "_BLOCK_BYTES", 7)
    path = tmp_path / "a.odgt"
    other = GOOD.replace('"a"', '"bé"')
    path.write_text(f"{GOOD}\n\n{other}")
    (index,) = index_odgt([str(path)])
    assert [(line.id, line.number, line.problem) for line in index.lines] == [("a", 1, ""), ("bé", 3, "")]
    data = path.read_bytes()
    for line in index.lines:
        assert json.loads(data[line.offset : line.offset + line.length])["ID"] == line.id
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 100)
    path.write_text(f"{GOOD[:50]}\n{GOOD * 9}")
    (index,) = index_odgt([str(path)])
    assert "line 2 has more than 100 bytes" in index.problem


def test_a_file_that_was_changed_after_the_plan_is_noticed(tmp_path):
    make_crowdhuman(tmp_path, 2)
    items, _, _ = claim_all([str(tmp_path)], "auto", SETTINGS)
    path = tmp_path / "annotation_val.odgt"
    path.write_text("\n" + path.read_text()[:-1])
    assert all("changed after the work was planned" in outcome(item) for item in items)


def test_an_output_that_was_begun_with_pictures_stays_so(tmp_path, caplog):
    pictures = make_crowdhuman(tmp_path, 2)
    listing, planned = list_inputs([str(tmp_path)]), frozenset(map(str, pictures))
    caplog.set_level("INFO")
    items, _ = claim_files(listing, "auto", SETTINGS, planned=planned)
    assert {item.source for item in items} == {"images"} and "stay without annotations" in caplog.text
    with pytest.raises(InputError, match="begun with its pictures without annotations"):
        claim_files(listing, "crowdhuman", SETTINGS, planned=planned)
