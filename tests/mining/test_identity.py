"""The same pictures under another path are the same items; other pictures under the same names are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.make_media import make_jpeg, make_mot, make_pictures, make_sa1b_folder, make_video
from tests.runs import rows, statuses, tars
from trackmill.jobs import mine_proposals
from trackmill.pipeline.mining.identity import recognise
from trackmill.pipeline.mining.places import root_of_input
from trackmill.schemas.media import WorkItem


def mine(output: Path, *inputs: Path | str, expect: int = 0, options: tuple[str, ...] = ()) -> None:
    words = ["--input", *map(str, inputs), "--output", str(output), "--executor", "inline", *options]
    assert mine_proposals.main(words) == expect


def names(output: Path) -> list[str]:
    return sorted(Path(source_id).name for source_id in statuses(output))


def test_a_folder_through_a_link_is_not_mined_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "data" / "pictures", 3)
    make_sa1b_folder(tmp_path / "data" / "sa1b", 2)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    mine(tmp_path / "out", tmp_path / "data")
    before = tars(tmp_path / "out")
    mine(tmp_path / "out", tmp_path / "link")
    assert tars(tmp_path / "out") == before
    assert len(rows(tmp_path / "out")) == 5
    assert "link and" in caplog.text and "hold the same: 5 items are mined once" in caplog.text
    caplog.clear()
    mine(tmp_path / "other", f"{tmp_path}/link/", tmp_path / "data")
    assert len(rows(tmp_path / "other")) == 5
    assert all(str(tmp_path / "data") in name for name in statuses(tmp_path / "other")), "the real path is the name"


def test_a_link_beside_its_folder_and_a_linked_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "data" / "pictures", 2)
    make_video(tmp_path / "data" / "videos" / "a.mp4")
    (tmp_path / "data" / "again").symlink_to("pictures")
    (tmp_path / "data" / "videos" / "b.mp4").symlink_to("a.mp4")
    mine(tmp_path / "out", tmp_path / "data")
    assert names(tmp_path / "out") == ["a.mp4#c000", "picture_0.jpg", "picture_1.jpg"]
    assert "b.mp4 and " in caplog.text


def test_linked_frames_with_other_annotations_stay_two_sequences(tmp_path: Path) -> None:
    """As in MOT17, where three folders share their pictures and each has detections and boxes of its own."""
    make_mot(tmp_path / "data")
    sequence = next(path.parent for path in sorted((tmp_path / "data").rglob("img1")))
    twin = sequence.with_name(f"{sequence.name}-SDP")
    shutil.copytree(sequence, twin, ignore=shutil.ignore_patterns("img1"))
    (twin / "img1").symlink_to(sequence / "img1")
    mine(tmp_path / "out", tmp_path / "data")
    assert sum("-SDP" in name for name in statuses(tmp_path / "out")) > 0


def test_a_copy_on_another_mount(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "a" / "x", 12)
    make_video(tmp_path / "a" / "v.mp4")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    make_jpeg(tmp_path / "b" / "x" / "new.jpg", 48, 64, seed=99)
    mine(tmp_path / "out", tmp_path / "a")
    mine(tmp_path / "out", tmp_path / "b")
    assert len(rows(tmp_path / "out")) == 14
    assert [name for name in statuses(tmp_path / "out") if "/b/" in name] == [str(tmp_path / "b" / "x" / "new.jpg")]
    assert "13 items are mined once" in caplog.text or "12 items are mined once" in caplog.text
    mine(tmp_path / "both", tmp_path / "b", tmp_path / "a")
    assert len(rows(tmp_path / "both")) == 14


def test_other_pictures_with_the_same_names_are_mined(tmp_path: Path) -> None:
    """Cameras number their pictures alike; some of them may be the same all the same."""
    make_pictures(tmp_path / "a", 6)
    for number in range(6):
        make_jpeg(tmp_path / "b" / f"picture_{number}.jpg", 48, 64, seed=number if number == 2 else 100 + number)
    size = max(path.stat().st_size for folder in "ab" for path in (tmp_path / folder).iterdir())
    for path in [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()]:
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # sizes tell nothing
    mine(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    mined = statuses(tmp_path / "out")
    assert set(mined.values()) == {"ok"}
    assert len(mined) == 11
    assert str(tmp_path / "b" / "picture_2.jpg") not in mined


def test_a_disk_that_is_mounted_elsewhere_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half is mined, then the disk moves: the other half is read at its new place, under its old name."""
    make_pictures(tmp_path / "old", 6)
    options = ("--set", "shards.unit_frames=1")
    mine(tmp_path / "whole", tmp_path / "old", options=options)
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for number in (3, 4, 5):
        (tmp_path / "out" / "receipts" / f"part-{number:08d}.parquet").unlink()
    os.rename(tmp_path / "old", tmp_path / "new")
    mine(tmp_path / "out", tmp_path / "new", options=options)
    assert statuses(tmp_path / "out") == statuses(tmp_path / "whole")
    assert {row.uri.split("/")[-2] for row in rows(tmp_path / "out")} == {"old", "new"}
    mine(tmp_path / "out", tmp_path / "new", options=options)
    assert len(rows(tmp_path / "out")) == 6


def test_quarantined_items_are_found_at_their_new_place(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "old", 3)
    whole = pictures[1].read_bytes()
    pictures[1].write_bytes(b"cut")
    mine(tmp_path / "out", tmp_path / "old")
    pictures[1].write_bytes(whole)
    os.rename(tmp_path / "old", tmp_path / "new")
    mine(tmp_path / "out", tmp_path / "new", options=("--only-quarantined",))
    assert set(statuses(tmp_path / "out").values()) == {"ok"}
    assert len(rows(tmp_path / "out")) == 3


def test_spellings_of_one_store() -> None:
    planned = [
        _item("s3a://bucket/x.jpg"),
        _item("https://host/y.jpg?X-Amz-Signature=1&a=2"),
        _item("https://h/z?id=1"),
    ]
    new = [_item("s3://bucket/x.jpg"), _item("https://host/y.jpg?a=3&X-Amz-Signature=9"), _item("https://h/z?id=2")]
    found = recognise([*planned, *new], None, ["s3://bucket", "https://host", "https://h"], [], {}, lambda item: None)
    assert [item.source_id for item in found.items] == [*(item.source_id for item in planned), new[2].source_id]


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("/data/pictures", "/data/pictures"),
        ("/data/one.jpg", "/data"),
        ("/data/v1.2", "/data/v1.2"),
        ("/data/*/x?.jpg", "/data"),
        ("s3://b/a/[0-9]*.tar", "s3://b/a"),
    ],
)
def test_items_are_named_below_the_folder_that_was_given(url: str, root: str) -> None:
    assert root_of_input(url, {"/data/one.jpg"}) == root


def _item(uri: str) -> WorkItem:
    return WorkItem(source="images", source_id=uri, key=uri, uri=uri)
