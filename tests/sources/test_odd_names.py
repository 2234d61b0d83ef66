"""Names that look like something else: each costs one item at most, and mostly nothing."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.make_media import add_member, jpeg_bytes, make_jpeg, make_mot, make_sa1b_tar, make_scene, make_video
from tests.runs import rows
from trackmill.jobs import mine_proposals
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.names import escaped, existing_path

NAMES = ["a::b.jpg", "a\nb.jpg", "a\t.jpg", "\x1b[31m.jpg", "|p.jpg", "a#b.jpg", "q?x=1.jpg", "[1]*.jpg", "ü.jpg"]
NAMES += [
    "-rf.jpg",
    "\u202egpj.jpg",
    "a\u200bb\ufeff.jpg",
    "a\u3000b\u00a0c.jpg",
    "\u07b2\x85\x7f.jpg",
    "é" * 125 + ".jpg",
]


def mine(folder: Path, output: Path) -> int:
    return mine_proposals.main(["--input", str(folder), "--output", str(output), "--executor", "inline"])


def test_pictures_videos_tars_and_folders_of_odd_names_are_mined(tmp_path, capsys):
    for name in NAMES:
        make_jpeg(tmp_path / "in" / name)
    make_jpeg(tmp_path / "in" / "folder::of" / "x.jpg")
    make_video(tmp_path / "in" / "v::1.mp4", 6)
    make_sa1b_tar(tmp_path / "in" / "sa_0::1.tar", 2)
    make_mot(tmp_path / "in", "seq::1", 2)
    assert mine(tmp_path / "in", tmp_path / "out") == 0
    mined = rows(tmp_path / "out")
    assert {row.status for row in mined} == {"ok"} and len(mined) == len(NAMES) + 1 + 1 + 2 + 1
    assert {Path(row.source_id).name for row in mined} >= set(map(escaped, NAMES))
    assert all(row.source_id.isprintable() and row.uri.isprintable() for row in mined)


def test_a_data_set_that_holds_names_as_they_were_goes_on(tmp_path, monkeypatch, capsys):
    """Older versions stored what cannot be shown; the spelling of now is recognised as the same file."""
    for name in ("a\nb.jpg", "a\u3000b.jpg", "\x1b[31m.jpg"):
        make_jpeg(tmp_path / "in" / name)
    with monkeypatch.context() as before:
        for module in ("urls", "list_files", "names", "listed_chunks"):
            before.setattr(f"trackmill.pipeline.storage.{module}.escaped", lambda name: name)
        assert mine(tmp_path / "in", tmp_path / "out") == 0
    keys = sorted(row.key for row in rows(tmp_path / "out"))
    assert any("\n" in row.source_id for row in rows(tmp_path / "out"))
    assert mine(tmp_path / "in", tmp_path / "out") == 0
    assert sorted(row.key for row in rows(tmp_path / "out")) == keys
    assert "nothing was left to do" in capsys.readouterr().out


def test_a_broken_file_of_an_odd_name_is_one_item_and_one_line(tmp_path, capsys):
    make_jpeg(tmp_path / "in" / "good.jpg")
    (tmp_path / "in" / "a\nerror: b\x1b[31m::.jpg").write_bytes(b"no picture")
    assert mine(tmp_path / "in", tmp_path / "out") == 0
    assert sorted(row.status for row in rows(tmp_path / "out")) == ["ok", "quarantined"]
    printed = "".join(capsys.readouterr())
    assert r"a\x0aerror: b\x1b[31m::.jpg: BadItem" in printed and "\x1b" not in printed
    assert not any(line.startswith("error") for line in printed.splitlines())


def test_names_that_are_not_utf8_are_mined_under_a_spelling(tmp_path):
    make_jpeg(tmp_path / "in" / "good.jpg")
    name = os.path.join(os.fsencode(tmp_path / "in"), b"caf\xe9.jpg")
    with open(name, "wb") as handle:
        handle.write(jpeg_bytes(make_scene(48, 64)[0]))
    assert mine(tmp_path / "in", tmp_path / "out") == 0
    assert [(Path(row.source_id).name, row.status) for row in rows(tmp_path / "out")] == [
        (r"caf\xe9.jpg", "ok"),
        ("good.jpg", "ok"),
    ]


def test_a_member_whose_name_is_not_utf8_costs_nothing_else(tmp_path):
    path = make_sa1b_tar(tmp_path / "in" / "sa_000000.tar", 1)
    with tarfile.open(path, "a", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        add_member(tar, "caf\xe9/sa_7.jpg", b"no picture")
    assert mine(tmp_path / "in", tmp_path / "out") == 0
    assert [row.status for row in rows(tmp_path / "out")] == ["ok", "quarantined"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe", "ü".encode(), rb"really \xe9.jpg"])
def test_spelling_and_finding_again(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    (file,) = list_files(str(tmp_path))
    file.uri.encode()
    assert existing_path(file.uri) == str(tmp_path / os.fsdecode(name)) and escaped(file.uri) == file.uri
    assert read_bytes(file.uri) == b"x"


def test_names_of_a_store_are_no_chains():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/odd/a::b.jpg", b"x")
    (file,) = list_files("memory://odd")
    assert file.uri.endswith("odd/a::b.jpg") and read_bytes(file.uri) == b"x"
