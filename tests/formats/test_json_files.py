"""JSON as people hand it in: read where its meaning is plain, else refused with line, column and mend."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_files import load_json

TEXT = '[{"score": 0.5, "name": "Größe"}]'


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        gzip.compress(TEXT.encode("utf-8-sig")),
        f"\n{TEXT}\n\n".encode(),
    ],
    ids=["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gzip", "empty lines"],
)
def test_every_encoding_reads_the_same(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert load_json(str(tmp_path / "a.json")) == [{"score": 0.5, "name": "Größe"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"score": 1},\n {"score": NaN}]',
            r"line 2, column 12: JSON has no NaN .* write a number, or leave the object",
        ),
        ('["Größe", NaN]', "line 1, column 11: JSON has no NaN"),
        ('[{"score": -Infinity}]', "line 1, column 1[23]: JSON has no NaN and no Infinity"),
        ('[{"score": 1_0}]', r"line 1, column 13: a number is written as 10.5, .* near '\[{\"score\": 1_0}\]'"),
        ('[{"score": 1,5}]', r"line 1, column 14: a number is written as 10\.5"),
        ("[{'score': 1}]", "line 1, column 3: text stands in double quotes"),
        ('[{"score": 1}]\n[{"score": 2}]', "line 2, column 1: there is more than one document; write one list"),
        ('[{"score": 1},\n{"sco', "it ends early, in line 2; copy it or write it again"),
        ("", "the file is empty"),
        ('[{"score": }]', "line 1, column 12: unexpected character"),
    ],
)
def test_broken_json_is_named_with_its_mend(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadTracks, match=rf"a\.json: not valid JSON: {message}"):
        load_json(str(tmp_path / "a.json"))


def test_text_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('[\n"Größe"]'.encode("latin-1"))
    with pytest.raises(BadTracks, match="line 2 is not UTF-8; write the file as UTF-8"):
        load_json(str(tmp_path / "a.json"))
