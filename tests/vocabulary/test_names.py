"""What `--classes` stands for, and names out of texts and files: every odd line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from trackmill.pipeline.vocabulary import read_class_names
from trackmill.pipeline.vocabulary.classes import Kind, kind_of
from trackmill.pipeline.vocabulary.files import beside
from trackmill.pipeline.vocabulary.names import names_in
from trackmill.schemas.errors import InputError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("person", Kind.NAMES),
        ("person,dog", Kind.NAMES),
        ("Pen/Pencil", Kind.NAMES),
        ("traffic light", Kind.NAMES),
        ("lvis", Kind.LVIS),
        ("LVIS", Kind.LVIS),
        ("classes.txt", Kind.NAME_FILE),
        ("coco.names", Kind.NAME_FILE),
        ("/somewhere/classes", Kind.NAME_FILE),
        ("./classes", Kind.NAME_FILE),
        ("~/classes", Kind.NAME_FILE),
        ("s3://bucket/classes", Kind.NAME_FILE),
        ("https://host/classes.txt?sig=a", Kind.NAME_FILE),
        ("https://host/classes.npz?sig=a", Kind.VECTOR_FILE),
        ("classes.npy", Kind.VECTOR_FILE),
        ("a,b/classes.NPY", Kind.VECTOR_FILE),
    ],
)
def test_what_a_text_stands_for(text: str, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traffic light").mkdir()  # a folder is no file of names
    assert kind_of(text) is kind


def test_a_file_that_is_called_like_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inner").mkdir()
    for name in ("classes", "inner/classes"):
        Path(name).write_text("dog\ncat\n")
    with pytest.raises(InputError, match=r"'classes' may be a class, and a file here is called so: write \./ before"):
        read_class_names("classes")
    assert read_class_names("./classes") == read_class_names("inner/classes") == ("dog", "cat")


@pytest.mark.parametrize("text", ["coco.json", "data/classes.yaml", "https://host/a.pth?token=sesame", "classes.csv"])
def test_files_of_other_kinds(text: str) -> None:
    with pytest.raises(InputError, match=r"a file of classes is a text with a name a line .*, not \.") as raised:
        read_class_names(text)
    assert "sesame" not in str(raised.value)


def test_beside() -> None:
    assert beside("s3://b/a.b/classes.npy", ".txt") == "s3://b/a.b/classes.txt"
    assert beside("/a/classes.NPZ", ".txt") == "/a/classes.txt"
    assert beside("https://host/classes.npy?sig=a", ".txt") == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("person,dog", ("person", "dog")),
        (" person , traffic light ", ("person", "traffic light")),
        ("café,Ωμέγα,“quoted” name", ("café", "Ωμέγα", "“quoted” name")),
    ],
)
def test_names_with_commas_between(text: str, names: tuple[str, ...]) -> None:
    assert read_class_names(text) == names == read_class_names(list(names)) == read_class_names(names)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "name 1 is empty"),
        ("person,,dog", "name 2 is empty"),
        ("person,dog,", "name 3 is empty"),
        ("dog,cat, dog", "the name 'dog' is there twice, as number 1 and 3"),
        ([], "found none"),
        (["dog", 3], "name 2 should be a text, found '3'"),
        (["dog", " "], "name 2 is empty"),
    ],
)
def test_names_that_are_refused(given: object, said: str) -> None:
    with pytest.raises(InputError, match=f"classes: .*{said}"):
        read_class_names(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"person\ntraffic light\n",
        b"person\r\ntraffic light\r\n",
        b"\xef\xbb\xbf\n# of our cameras\n  person \n\n#\n\ttraffic light",
        "person\ntraffic light\n".encode("utf-16"),
        "person\r\ntraffic light\r\n".encode("utf-16-le"),
    ],
    ids=["plain", "windows", "mark and comments", "utf-16", "utf-16 without mark"],
)
def test_files_as_editors_write_them(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    assert read_class_names(str(tmp_path / "classes.txt")) == ("person", "traffic light")


def test_a_comma_in_a_line_is_part_of_the_name() -> None:
    assert names_in(b"tench, Tinca tinca\ngoldfish, Carassius auratus\n", "a.txt")[0] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"dog\ncaf\xe9\n", r"line 2 is no UTF-8 \(byte 0xe9\); save the file as UTF-8"),
        (b"dog\ncat\n\n dog\n", "line 4: the name 'dog' is in line 1 already"),
        (b"dog\n#cat\n", "line 2: '#cat' may be a comment or a name"),
        (b"dog\nc\x07at\n", "line 2: name 1 holds characters that cannot be printed"),
        (b"dog\n" + b"x" * 5000, "line 2: name 1 has 5,000 characters"),
        (b"dog,cat,person\n", "one line with commas"),
        (b"\n# nothing\n", "holds no name"),
        (b"", "holds no name"),
        (b"<!DOCTYPE html>\n<p>sign in</p>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ".*pointer of Git LFS"),
        (b"\x93NUMPY\x00\x01", "not a text file"),
    ],
)
def test_lines_that_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=rf"a\.txt: {said}") as raised:
        names_in(data, "a.txt")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_files_that_are_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"classes: there is no file .*gone\.txt; check the path"):
        read_class_names(str(tmp_path / "gone.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match=r"folder\.txt is a folder; name a file in it"):
        read_class_names(str(tmp_path / "folder.txt"))
    (tmp_path / "large.txt").write_bytes(b"dog\n" * 100)
    monkeypatch.setattr("trackmill.pipeline.vocabulary.names.MAX_NAMES_BYTES", 100)
    with pytest.raises(InputError, match="400 bytes, more than the limit of 100"):
        read_class_names(str(tmp_path / "large.txt"))
