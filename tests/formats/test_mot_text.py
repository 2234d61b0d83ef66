"""MOTChallenge text: what is read as it stands, and what is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.mot_text import parse_mot_text

GOOD = b"1,1,10,20,30,40,1,-1,-1,-1\n2,1,11,20,30,40,0.5,-1,-1,-1\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.rstrip(b"\n"),
        GOOD.replace(b",", b", "),  # SportsMOT
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + GOOD,
        b"\n" + GOOD.replace(b"\n", b"\n\n"),
        GOOD.replace(b"\n", b"\n  \n"),
        GOOD.replace(b"\n", b",\n"),
        GOOD.replace(b"\n", b" \n"),
        GOOD.replace(b",", b" "),
        GOOD.replace(b",", b"\t"),
        GOOD.replace(b"1,1,10,", b"1.0,1.00,1e1,"),
        b"\n".join(reversed(GOOD.splitlines())),  # frames in any order
        GOOD.decode().encode("utf-16"),  # PowerShell's `>`
        GOOD.decode().encode("utf-16-le"),
        GOOD.decode().encode("utf-16-be"),
        GOOD.replace(b"2,1,", b"\xef\xbb\xbf2,1,"),  # two files with marks, joined
        GOOD.replace(b"\n", b"\n\f\n"),  # pages
        GOOD.replace(b",20,", b",\f20,"),
        GOOD.replace(b",", b";"),
        GOOD.replace(b",", b";").replace(b".", b","),  # a spreadsheet's decimal commas
        GOOD.replace(b",", b";").replace(b".", b",").replace(b"10;20", b"10,0;20"),
        GOOD.replace(b",", b"\t").replace(b".", b",").replace(b"10\t20", b"10,0\t20"),
        GOOD.replace(b",", b" ").replace(b".", b","),
        b'"' + GOOD.replace(b",", b'","').replace(b"\n", b'"\n"').removesuffix(b'"'),
    ],
)
def test_every_spelling_reads_the_same(text: bytes) -> None:
    rows = parse_mot_text(text, "a.txt")
    order = np.argsort(rows.frames)
    assert rows.frames[order].tolist() == [1, 2]
    assert rows.ids.tolist() == [1, 1]
    assert rows.boxes[order].tolist() == [[10, 20, 40, 60], [11, 20, 41, 60]]
    assert rows.confidence[order].tolist() == [1, 0.5]
    assert rows.num_columns == 10


@pytest.mark.parametrize("text", [b"", b"\n\n", b"  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_rows(text: bytes) -> None:
    assert len(parse_mot_text(text, "a.txt")) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"3,1,10,20,30,40", "line 4: 6 columns where the first line has 10"),
        (b"3,1,10,20,30,40,1,-1,-1,-1,-1", "line 4: 11 columns where the first line has 10"),
        (b"3,1,10,20,x,40,1,-1,-1,-1", "line 4: column 5 is no number"),
        (b"3,1,10,,30,40,1,-1,-1,-1", "line 4: column 4 is no number"),
        (b"3,1,10,20,nan,40,1,-1,-1,-1", "line 4: column 5 is not finite"),
        (b"3,1,10,20,inf,40,1,-1,-1,-1", "line 4: column 5 is not finite"),
        (b"3,1,10,20,-30,40,1,-1,-1,-1", "line 4: the box has a negative width or height"),
        (b"0,1,10,20,30,40,1,-1,-1,-1", "line 4: frame 0, but frames count from 1"),
        (b"3.5,1,10,20,30,40,1,-1,-1,-1", "line 4: the frame should be a whole number"),
        (b"3,1.5,10,20,30,40,1,-1,-1,-1", "line 4: the id should be a whole number"),
        (b"3,1e300,10,20,30,40,1,-1,-1,-1", "line 4: the id should be a whole number"),
        (b"2,1,10,20,30,40,1,-1,-1,-1", "line 4: id 1 stands twice in frame 2"),
        (b"3,-1,1,1,1,1,1,-1,-1,-1\n3,-1,1,1,1,1,1,-1,-1,-1", "line 5: id -1 stands twice in frame 3; these are detec"),
        (b"frame,id,x,y,w,h,conf,a,b,c", "line 4: column 1 is no number: 'frame,id,.*a line of headings"),
        (b"3,1_0,10,20,30,40,1,-1,-1,-1", "line 4: column 2 is no number: '3,1_0,10,.*'; digits stand without undersc"),
        (b"3,1,0x10,20,30,40,1,-1,-1,-1", "line 4: column 3 is no number"),
        ("3,1,１０,20,30,40,1,-1,-1,-1".encode(), "line 4: column 3 is no number"),
        (b"3,1,10,5,20,5,30,40,1,-1,-1,-1", "line 4: 12 columns where .*; if these are decimal commas, write 10.5"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str) -> None:
    # The third line is blank: it counts as a line, but holds no row.
    with pytest.raises(BadTracks, match=f"^folder/a.txt: {message}"):
        parse_mot_text(GOOD + b"\n" + line + b"\n", "folder/a.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1,1,10,20,30,40\n", "line 1: 6 columns, at least 7 are needed"),
        (b"{}\n", "line 1: 1 columns"),
        (b"\x89PNG\0\0\n", "not a text file"),
        (b"\xff\xfe1", "begins as UTF-16 text and is none"),
        (b"1,1,10,5,20,25,30,0,40,5,1\n", "line 1: 11 columns and no decimal point .* decimal commas; write 10.5"),
    ],
)
def test_a_file_that_is_no_track_file(text: bytes, message: str) -> None:
    with pytest.raises(BadTracks, match=message):
        parse_mot_text(text, "a.txt")


def test_ids_far_apart_are_compared_too() -> None:
    far = b"1,5,1,1,1,1,1\n1,900000000000,1,1,1,1,1\n"
    assert len(parse_mot_text(far, "a.txt")) == 2
    with pytest.raises(BadTracks, match="line 3: id 900000000000 stands twice"):
        parse_mot_text(far + b"1,900000000000,1,1,1,1,1\n", "a.txt")


def test_a_class_is_only_what_can_be_one() -> None:
    rows = parse_mot_text(b"1,1,1,1,1,1,1,7,1\n1,2,1,1,1,1,1,-5.5,1\n1,3,1,1,1,1,1,nan,1\n", "a.txt")
    assert rows.classes.tolist() == [7, -1, -1]


def test_detections_have_no_identities() -> None:
    rows = parse_mot_text(b"1,-1,1,1,1,1,1\n1,-1,2,1,1,1,1\n", "a.txt", identities=False)
    assert rows.ids.tolist() == [-1, -1]
