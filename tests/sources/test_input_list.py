"""A list of inputs: names, URLs and comments; relative to the list; what is missing costs one item."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.make_media import make_pictures
from tests.runs import rows
from trackmill.jobs import mine_proposals
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.sources.input_list import expand_shards, read_input_list
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.schemas.errors import InputError


def test_names_are_relative_to_the_list_and_comments_are_passed_over(tmp_path):
    path = tmp_path / "lists" / "all.txt"
    path.parent.mkdir()
    path.write_text("\ufeff# mine these\n\na.jpg\r\n  ../b c.jpg  \n/data/#1.jpg\ns3://bucket/x.jpg\na.jpg\n~/d.jpg\n")
    folder = path.parent
    assert read_input_list(str(path)) == [
        f"{folder}/a.jpg",
        f"{folder}/../b c.jpg",
        "/data/#1.jpg",
        "s3://bucket/x.jpg",
        "~/d.jpg",
    ]


def test_names_that_end_with_zero_bytes_may_hold_line_breaks(tmp_path):
    (tmp_path / "list").write_bytes(b"a\nb.jpg\0#c.jpg\0caf\xe9.jpg\0")
    names = [Path(name).name for name in read_input_list(str(tmp_path / "list"))]
    assert names == [r"a\x0ab.jpg", "#c.jpg", r"caf\xe9.jpg"]


def test_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\n")))
    assert read_input_list("-") == ["./a.jpg"]


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "names no input"), (b"# nothing\n", "names no input"), ("a".encode("utf-16"), "UTF-16")]
)
def test_a_list_that_names_nothing(tmp_path, content, text):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"--input-list .*list\.txt: .*{text}"):
        read_input_list(str(tmp_path / "list.txt"))


def test_mining_a_list(tmp_path, monkeypatch):
    made = make_pictures(tmp_path / "in", 4)
    (tmp_path / "in" / "list.txt").write_text("picture_0.jpg\npicture_2.jpg\nmissing.jpg\n")
    command = ["--output", str(tmp_path / "out"), "--executor", "inline", "--input-list"]
    assert mine_proposals.main([*command, str(tmp_path / "in" / "list.txt")]) == 0
    assert {Path(row.source_id).name: row.status for row in rows(tmp_path / "out")} == {
        "picture_0.jpg": "ok",
        "picture_2.jpg": "ok",
        "missing.jpg": "quarantined",
    }
    assert mine_proposals.main([*command, str(tmp_path / "in" / "list.txt"), "--input", str(made[3])]) == 0
    assert len(rows(tmp_path / "out")) == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in/picture_1.jpg\n")))
    assert mine_proposals.main([*command, "-"]) == 0
    assert len(rows(tmp_path / "out")) == 5
    assert mine_proposals.main([*command, str(tmp_path / "no-list.txt")]) == 2


def test_ranges_of_shards_are_written_out(tmp_path):
    assert expand_shards(["s3://b/train-{000008..000010}.tar", "x.jpg"]) == [
        "s3://b/train-000008.tar",
        "s3://b/train-000009.tar",
        "s3://b/train-000010.tar",
        "x.jpg",
    ]
    assert expand_shards(["{0..1}/{8..9}"]) == ["0/8", "0/9", "1/8", "1/9"]
    (tmp_path / "{1..2}.jpg").touch()
    assert expand_shards([f"{tmp_path}/{{1..2}}.jpg"]) == [f"{tmp_path}/{{1..2}}.jpg"], "a file of that name"
    with pytest.raises(InputError, match="should count up"):
        expand_shards(["{3..1}.tar"])


def test_ranges_that_would_fill_the_memory_are_refused_before_they_are_written_out():
    for name in ("{0..999}/{0..999}/{0..999}.tar", "{0..999999999999}.tar", "{0..1}" * 1000):
        with pytest.raises(InputError, match="at most 1000000 names") as error:
            expand_shards([name])
        assert len(str(error.value)) < 400
    with pytest.raises(InputError, match="more names than fit into memory"):
        expand_shards(["x" * 100 + "{0..999999}.tar"] * 4)
    assert expand_shards(["{0..0}" * 3000]) == ["0" * 3000], "many ranges of one name are one name"


def test_the_output_is_not_the_input_itself(tmp_path):
    make_pictures(tmp_path / "in")
    with pytest.raises(InputError, match="is both input and output; give another --output, which may lie inside it"):
        list_inputs([f"{tmp_path}/in/"], output=str(tmp_path / "in"))


def test_an_input_behind_a_link_to_nothing_names_the_link(tmp_path):
    (tmp_path / "disk").symlink_to("unmounted")
    with pytest.raises(FileNotFoundError, match=r"/disk: a link to unmounted, where nothing is$"):
        list_inputs([f"{tmp_path}/disk/photos"])


def test_a_list_that_is_none_is_named_in_the_error(tmp_path, capsys):
    """A CSV with headings, and a picture in place of the list."""
    (picture,) = make_pictures(tmp_path / "in", 1)
    (tmp_path / "list.csv").write_text(f"path,caption\n{picture},a dog\n")
    for wrong in (tmp_path / "list.csv", picture):
        words = ["--input-list", str(wrong), "--output", str(tmp_path / "out"), "--executor", "inline"]
        assert mine_proposals.main(words) == 2
        assert (
            f"--input-list {wrong} names it, and should have one file, folder or URL a line" in capsys.readouterr().err
        )


def test_urls_with_a_query_that_signs_nothing_say_why_they_are_not_mined():
    files = [FileInfo("https://host.example/a.jpg?size=large", 9)]
    with pytest.raises(InputError, match="and is taken only if it signs the URL") as caught:
        claim_files(files, "auto", ReadSettings())
    assert "large" not in str(caught.value)
